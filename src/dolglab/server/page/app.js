// The frame of the page: the token dialog, the line about the library, and the views.

import { keepToken, onToken } from "./api.js";
import { $ } from "./dom.js";
import { about, onChange } from "./library.js";
import { start } from "./views.js";
import { count } from "./words.js";

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
// Without the token there is nothing behind the dialog to go back to.
$("ask").addEventListener("cancel", (event) => event.preventDefault());

function fail(error) {
  $("failed").textContent = error?.message ?? "";
  $("failed").hidden = !error;
}

async function describe() {
  try {
    const { photos, model, columns } = await about();
    $("about").textContent = `${count(photos)} · ${model}`;
    const named = columns.map(({ name }) => name);
    $("places-link").hidden = !(named.includes("latitude") && named.includes("longitude"));
  } catch (error) {
    $("about").textContent = "";
    fail(error);
  }
}

onChange(describe);
describe();
start(fail);
