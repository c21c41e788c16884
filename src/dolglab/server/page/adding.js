// Photos that are added to the library, one after the other, and one that is taken out of it.

import { $, element } from "./dom.js";
import { about, add, changed, remove } from "./library.js";

let stop = null;

/** Adds files, after a question where `ask`; false where the server takes none. */
export async function startAdding(files, ask = false) {
  const { read_only, max_upload_bytes: most } = await about();
  if (read_only) return false;
  const many = `${files.length} ${files.length === 1 ? "photo" : "photos"}`;
  if (stop || (ask && !(await confirmed(`Add ${many} to the library?`, "Add")))) return true;
  stop = new AbortController();
  $("adding").hidden = false;
  $("progress").max = files.length;
  $("failures").replaceChildren();
  $("stop").textContent = "Stop";
  const failures = await addAll(files, most, stop.signal);
  const added = $("progress").value;
  const left = files.length - added - failures;
  stop = null;
  $("added").textContent = [`${added} of ${many} added`, ...(failures ? [`${failures} not added:`] : []), ...(left ? [`${left} not sent`] : [])].join(", ");
  $("stop").textContent = "Close";
  if (added) changed();
  return true;
}

/** Adds files and shows how far that is; how many were refused. */
async function addAll(files, most, signal) {
  let failures = 0;
  $("progress").value = 0;
  for (const [place, file] of files.entries()) {
    $("added").textContent = `Adding ${place + 1} of ${files.length}: ${file.name}`;
    try {
      if (file.size > most) throw new Error(`it has ${(file.size / 1e6).toFixed(1)} MB, more than ${most / 1e6}`);
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

/** Takes a photo out of the library once a person has said so; whether it is out. */
export async function removed({ id, name }) {
  const sure = await confirmed(`Remove ${name} from the library? Its file is deleted only if it was added on this page.`, "Remove");
  if (sure) await remove(id);
  return sure;
}

/** Asks a person; true where they agree. */
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
