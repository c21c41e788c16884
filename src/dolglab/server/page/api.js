// The server's API: the token, errors as one line, and pictures, which a token guards too.

const KEY = "token";
let ask = async () => {};
let asking;

/** Has `handler(wrong)` called where the server wants a token; it ends when one was given. */
export function onToken(handler) {
  ask = handler;
}

export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

/**
 * Asks the server; the answer's Response. Throws an Error whose message is the server's one line, with the `status` and
 * the seconds to `wait` where the server asks for that.
 * Paths are relative to the page, which lies below a prefix behind some proxies.
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
    // Of several calls at once one asks, and those for which another has asked meanwhile are made again.
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

/** As `call`, again some times where the server asks to wait a moment. */
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

/** An address that an image can have, of a picture behind the token. */
export async function picture(path, options) {
  return URL.createObjectURL(await (await patiently(path, options)).blob());
}

/** The name that the server gives a file to be kept under. */
export function fileName(answer) {
  return decodeURIComponent(answer.headers.get("Content-Disposition").split("filename*=UTF-8''")[1]);
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: it may have stopped, or refused what was sent.");
  }
}

async function reason(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
