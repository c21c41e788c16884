// The status line of requests: what is being done, the result, or the error.

import { $ } from "./dom.js";

// Milliseconds after which the page says that it waits. Most answers arrive earlier; to draw the wait would delay them.
const NOTICED = 200;
let running = null;

/**
 * Runs `work(signal)`, which resolves to the final status, and shows its error. A newer call, or `stop`, aborts it.
 * `waiting()` is called when the wait becomes noticeable, `failed()` before an error is shown.
 */
export async function busy(words, work, { waiting = () => {}, failed = () => {} } = {}) {
  running?.abort();
  const current = (running = new AbortController());
  const { signal } = current;
  // Before anything else, so that its request goes out at once.
  const worked = work(signal);
  $("error").hidden = true;
  const cancel = onceNoticed(() => {
    $("status").textContent = words;
    $("status").classList.add("busy");
    waiting();
  });
  try {
    const told = await worked;
    if (!signal.aborted) $("status").textContent = told;
  } catch (error) {
    if (signal.aborted) return;
    $("status").textContent = "";
    failed();
    fail(error);
  } finally {
    cancel();
    if (running === current) stop();
  }
}

/** Calls `show` when the wait becomes noticeable, unless the returned function is called before. */
export function onceNoticed(show) {
  const timer = setTimeout(show, NOTICED);
  return () => clearTimeout(timer);
}

/** Resolves when a wait that starts now becomes noticeable. */
export function noticeable() {
  return new Promise((now) => onceNoticed(now));
}

/** Aborts what is running. */
export function stop() {
  running?.abort();
  running = null;
  $("status").classList.remove("busy");
  stale(false);
}

/** Dims the answers to the previous query, which cannot be marked, until the new ones arrive. */
export function stale(is) {
  $("results").inert = $("marks").inert = is;
  $("results").setAttribute("aria-busy", String(is));
}

export function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}
