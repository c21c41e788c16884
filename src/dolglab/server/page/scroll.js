// Where the user was on the page, kept in each entry of the browser's history.

// Browsers restore a position at once, before the photos of the view are there.
history.scrollRestoration = "manual";
// Number of frames until the cards around a position have their heights.
const FRAMES = 4;
const items = () => [...document.querySelectorAll(".view:not([hidden]) li")];

/** The position, with the first list item in the viewport and its distance from the top: heights far above are estimates. */
export function position() {
  const listed = scrollY ? items() : [];
  const place = listed.findIndex((item) => item.getBoundingClientRect().bottom > 0);
  return { y: scrollY, place, top: listed[place]?.getBoundingClientRect().top };
}

/** Stores the position in the entry of the history that is open. */
export function store() {
  history.replaceState(position(), "");
}

/** Scrolls to the position of the entry that is open, if it has one, and stores where that led. */
export async function restore() {
  if (history.state) await scrollBack(history.state);
  store();
}

async function scrollBack({ y, place, top }) {
  scrollTo(0, y);
  // Cards that come near the viewport get their real heights with the next frames, which moves the others.
  for (let frame = 0; frame < FRAMES; frame += 1) {
    const item = items()[place];
    if (item) scrollBy(0, item.getBoundingClientRect().top - top);
    await new Promise(requestAnimationFrame);
  }
}
