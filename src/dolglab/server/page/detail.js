// One answer beside the query: matches, attention, what the cosine consists of, what the catalogue says.

import { call, form, json, picture } from "./api.js";
import { $, element } from "./dom.js";

const TERMS = [["global", "global with global"], ["local", "local with local"], ["cross", "global with local"], ["bias", "with the bias"]];

export class Detail {
  /** `asked()` gives the query: photo, box and an address of its picture; `again(file)` searches with another one. */
  constructor(asked, again) {
    this.asked = asked;
    this.again = again;
    this.dialog = $("detail");
    $("close").onclick = () => this.dialog.close();
    $("previous").onclick = () => this.#show(this.place - 1);
    $("next").onclick = () => this.#show(this.place + 1);
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => this.stop?.abort());
  }

  open(answers, place) {
    this.answers = answers;
    this.dialog.showModal();
    this.#show(place);
  }

  async #show(place) {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.place = place;
    const answer = this.answers[place];
    $("previous").disabled = place === 0;
    $("next").disabled = place === this.answers.length - 1;
    $("title").textContent = answer.name;
    const status = element("p", { role: "status", className: "status busy" }, "Comparing the two…");
    const photos = element("div", { className: "pair" });
    $("body").replaceChildren(photos, status, facts(answer));
    this.dialog.scrollTop = 0;
    try {
      const theirs = picture(image(answer));
      const { photo, box, address } = await this.asked();
      photos.append(figure("Your photo", address), figure("Answer", await theirs));
      const why = await json("api/explain", { ...form({ photo, box, id: answer.id }), signal });
      if (!signal.aborted) status.replaceWith(...explained(why), this.#more(answer));
    } catch (error) {
      if (signal.aborted) return;
      status.className = "alert";
      status.textContent = error.message;
    }
  }

  #more(answer) {
    const button = element("button", { type: "button" }, "Search with this photo");
    button.onclick = async () => {
      const data = await (await call(image(answer))).blob();
      this.dialog.close();
      this.again(new File([data], answer.name.split("/").pop(), { type: data.type }));
    };
    return element("p", { className: "more" }, button);
  }
}

const image = (answer) => `api/photos/${answer.id}/image`;

function figure(caption, address) {
  return element("figure", {}, element("figcaption", {}, caption), element("img", { src: address, alt: caption }));
}

function explained({ matches, inliers, features, picture: drawn, attention, terms }) {
  const count = `${inliers} of ${matches} matching local features (${features}) agree on one transformation`;
  const jpeg = (data) => `data:image/jpeg;base64,${data}`;
  return [
    element("h3", {}, "Matches"),
    element("p", { className: "soft" }, count),
    element("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Matches, drawn" },
      element("img", { src: jpeg(drawn), alt: count })),
    element("h3", {}, "Where the network looks"),
    element("div", { className: "pair" },
      figure("In your photo", jpeg(attention[0])),
      figure("In the answer", jpeg(attention[1]))),
    element("h3", {}, "The cosine, term by term"),
    terms ? table(terms) : element("p", { className: "soft" }, "This network's descriptor is no sum of parts."),
  ];
}

function table(terms) {
  const rows = TERMS.map(([key, name]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, terms[key].toFixed(3))));
  return element("table", {}, element("tbody", {}, ...rows));
}

function facts(answer) {
  const pairs = [["Cosine", answer.cosine.toFixed(3)], ["Size", `${answer.width} × ${answer.height} pixels as described`],
    ...Object.entries(answer.metadata)];
  return element("section", { "aria-label": "The answer" }, element("h3", {}, "The answer"),
    element("dl", {}, ...pairs.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)])));
}
