// The page's frame: the token, the line about the library, and the views.

import { keepToken, onToken } from "./api.js";
import { $ } from "./dom.js";
import { about, onChange } from "./library.js";
import { start } from "./views.js";

onToken((wrong) => {
  $("wrong").hidden = !wrong;
  $("ask").showModal();
  return new Promise((given) => {
    $("login").onsubmit = (event) => {
      event.preventDefault();
      keepToken($("token").value);
      $("ask").close();
      given();
    };
  });
});
// Without the token there is nothing to go back to.
$("ask").addEventListener("cancel", (event) => event.preventDefault());

function fail(error) {
  $("failed").textContent = error?.message ?? "";
  $("failed").hidden = !error;
}

async function describe() {
  try {
    const { photos, model } = await about();
    $("about").textContent = `${photos.toLocaleString("en")} ${photos === 1 ? "photo" : "photos"} · ${model}`;
  } catch (error) {
    $("about").textContent = "";
    fail(error);
  }
}

onChange(describe);
describe();
start(fail);
