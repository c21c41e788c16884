// Where the user was on the page, kept in each entry of the browser's history.

// Browsers restore a position at once, before the photos of the view are there.
history.scrollRestoration = "manual";
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

/** Scrolls to the position of the entry that is open; stores the present one in an entry without. */
export function restore() {
  if (!history.state) return store();
  const { y, place, top } = history.state;
  scrollTo(0, y);
  const item = items()[place];
  if (item) scrollBy(0, item.getBoundingClientRect().top - top);
}
