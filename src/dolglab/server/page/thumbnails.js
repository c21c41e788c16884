// Thumbnails of photos, fetched when they approach the viewport.

import { picture } from "./api.js";
import { element } from "./dom.js";

// Milliseconds after which pictures that are no longer needed are released.
const LATER = 1000;

export class Thumbnails {
  constructor() {
    this.clear();
  }

  /** Releases all pictures and aborts pending requests. */
  clear() {
    this.stop?.abort();
    this.observer?.disconnect();
    const { addresses = [] } = this;
    // Later, because it takes milliseconds, and what replaces the pictures is on its way.
    setTimeout(() => addresses.forEach((address) => URL.revokeObjectURL(address)), LATER);
    this.stop = new AbortController();
    this.addresses = [];
    this.photos = new Map();
    this.observer = new IntersectionObserver((seen) => this.#near(seen), { rootMargin: "400px" });
  }

  /** An `<img>` of a photo; if it cannot be loaded, a text with the reason replaces it. */
  image({ id, name }) {
    const made = element("img", { alt: name });
    this.photos.set(made, id);
    this.observer.observe(made);
    return made;
  }

  #near(seen) {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      this.observer.unobserve(target);
      this.#fetch(target, this.stop.signal);
    }
  }

  async #fetch(image, signal) {
    try {
      const address = await picture(`api/photos/${this.photos.get(image)}/thumbnail`, { signal, priority: "low" });
      if (signal.aborted) return URL.revokeObjectURL(address);
      this.addresses.push(address);
      image.src = address;
    } catch (error) {
      if (!signal.aborted) image.replaceWith(element("span", { className: "missing" }, `No picture: ${error.message}`));
    }
  }
}
