// Calls of the server's API: they send the token and turn errors into one line of text.

const KEY = "token";
let ask = async () => {};
let asking;

/** Sets the function that asks for the token: `handler(wrong)`, a promise that resolves once one was entered. */
export function onToken(handler) {
  ask = handler;
}

export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

/**
 * Fetches a path and returns the Response. Throws an Error with the server's error message, the `status`, and `wait`:
 * the seconds of its Retry-After header, or 0. Paths are relative to the page, because a proxy may serve it under a prefix.
 */
export async function call(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const answer = await reach(path, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status !== 401) {
      const wait = Number(answer.headers.get("Retry-After") ?? 0);
      throw Object.assign(new Error(await reason(answer)), { status: answer.status, wait });
    }
    // Only one of several simultaneous calls asks for the token; all of them are then repeated.
    if (sessionStorage.getItem(KEY) === token) await (asking ??= ask(token !== null).finally(() => (asking = undefined)));
  }
}

export async function json(path, options) {
  return (await call(path, options)).json();
}

export function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) body.append(name, one);
  }
  return { method: "POST", body };
}

/** As `call`, but retries when the server asks to wait. */
export async function patiently(path, options, tries = 5) {
  for (;;) {
    try {
      return await call(path, options);
    } catch (error) {
      if (!error.wait || !--tries) throw error;
      await new Promise((over) => setTimeout(over, 1000 * error.wait));
      options?.signal?.throwIfAborted();
    }
  }
}

/** An object URL of a picture, which an `<img>` could not fetch itself because it sends no token. */
export async function picture(path, options) {
  return URL.createObjectURL(await (await patiently(path, options)).blob());
}

/** The file name in the Content-Disposition header. */
export function fileName(answer) {
  return decodeURIComponent(answer.headers.get("Content-Disposition").split("filename*=UTF-8''")[1]);
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("No response from the server: it may have stopped or refused the upload.");
  }
}

async function reason(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server responded with status ${answer.status}.`;
  }
}
