// Adding photos to the library, one after the other, and removing one.

import { $, element } from "./dom.js";
import { about, add, changed, remove } from "./library.js";
import { count } from "./words.js";

let stop = null;

/** Adds files, with `ask` after confirmation; resolves to false if the server does not accept photos. */
export async function startAdding(files, ask = false) {
  const { read_only, max_upload_bytes: most } = await about();
  if (read_only) return false;
  const many = count(files.length);
  if (stop || (ask && !(await confirmed(`Add ${many} to the library?`, "Add")))) return true;
  stop = new AbortController();
  $("adding").hidden = false;
  $("progress").max = files.length;
  $("failures").replaceChildren();
  $("stop").textContent = "Stop";
  const failures = await addAll(files, most, stop.signal);
  const added = $("progress").value;
  const unsent = files.length - added - failures;
  stop = null;
  $("added").textContent = [`${added} of ${many} added`, ...(failures ? [`${failures} not added:`] : []), ...(unsent ? [`${unsent} not sent`] : [])].join(", ");
  $("stop").textContent = "Close";
  if (added) changed();
  return true;
}

/** Adds files and shows the progress; resolves to the number that failed. */
async function addAll(files, most, signal) {
  let failures = 0;
  $("progress").value = 0;
  for (const [place, file] of files.entries()) {
    $("added").textContent = `Adding ${place + 1} of ${files.length}: ${file.name}`;
    try {
      if (file.size > most) throw new Error(`it has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${most / 1e6} MB`);
      await add(file, signal);
      $("progress").value += 1;
    } catch (error) {
      if (signal.aborted) break;
      failures += 1;
      $("failures").append(element("li", {}, `${file.name}: ${error.message}`));
    }
  }
  return failures;
}

/** Removes a photo from the library after confirmation; resolves to whether it was removed. */
export async function removed({ id, name }) {
  const sure = await confirmed(`Remove ${name} from the library? Its file is deleted only if it was added on this page.`, "Remove");
  if (sure) await remove(id);
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
