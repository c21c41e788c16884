// Adding photos to the library and removing them, one after the other.

import { $, element } from "./dom.js";
import { about, add, changed, remove } from "./library.js";
import { count } from "./words.js";

let stop = null;

/** Adds files, with `ask` after confirmation; resolves to false if the server does not accept photos. */
export async function startAdding(files, ask = false) {
  const { read_only, max_upload_bytes: most } = await about();
  if (read_only) return false;
  if (stop || (ask && !(await confirmed(`Add ${count(files.length)} to the library?`, "Add")))) return true;
  await inTurn(files, ["Adding", "added", "Photos added"], async (file, signal) => {
    if (file.size > most) throw new Error(`it has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${most / 1e6} MB`);
    await add(file, signal);
  });
  return true;
}

/** Removes photos after confirmation; resolves to those that were removed. */
export async function removeAll(photos) {
  const question = `Remove ${count(photos.length)} from the library? Files are deleted only if they were added on this page.`;
  if (stop || !(await confirmed(question, "Remove"))) return [];
  return inTurn(photos, ["Removing", "removed", "Photos removed"], ({ id }, signal) => remove(id, signal));
}

/** Calls `work(item, signal)` for one item after another and shows the progress; resolves to those that did not fail. */
async function inTurn(items, [doing, done, label], work) {
  stop = new AbortController();
  const { signal } = stop;
  $("adding").hidden = false;
  Object.assign($("progress"), { max: items.length, value: 0, ariaLabel: label });
  $("failures").replaceChildren();
  $("stop").textContent = "Stop";
  const finished = [];
  let failures = 0;
  for (const [place, item] of items.entries()) {
    $("added").textContent = `${doing} ${place + 1} of ${items.length}: ${item.name}`;
    try {
      await work(item, signal);
      finished.push(item);
      $("progress").value = finished.length;
    } catch (error) {
      if (signal.aborted) break;
      failures += 1;
      $("failures").append(element("li", {}, `${item.name}: ${error.message}`));
    }
  }
  const unsent = items.length - finished.length - failures;
  stop = null;
  $("added").textContent = [`${finished.length} of ${count(items.length)} ${done}`, ...(failures ? [`${failures} not ${done}:`] : []), ...(unsent ? [`${unsent} not sent`] : [])].join(", ");
  $("stop").textContent = "Close";
  if (finished.length) changed();
  return finished;
}

/** Removes a photo from the library after confirmation; resolves to whether it was removed. */
export async function removed({ id, name }) {
  const sure = await confirmed(`Remove ${name} from the library? Its file is deleted only if it was added on this page.`, "Remove");
  if (sure) {
    await remove(id);
    changed(id);
  }
  return sure;
}

/** Asks for confirmation; resolves to true if the user agrees. */
function confirmed(question, action) {
  $("question").textContent = question;
  $("agree").textContent = action;
  $("sure").returnValue = "";
  $("sure").showModal();
  return new Promise((answered) => {
    $("sure").addEventListener("close", () => answered($("sure").returnValue === "yes"), { once: true });
  });
}

$("agree").onclick = () => $("sure").close("yes");
$("disagree").onclick = () => $("sure").close();
$("stop").onclick = () => {
  if (stop) stop.abort();
  else $("adding").hidden = true;
};
$("add").addEventListener("change", () => {
  const files = [...$("add").files];
  $("add").value = "";
  if (files.length) startAdding(files);
});
addEventListener("beforeunload", (event) => stop && event.preventDefault());
about().then(({ read_only }) => ($("offer").hidden = read_only), () => {});
