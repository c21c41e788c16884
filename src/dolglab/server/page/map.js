// A map of the library.

/** See views.js. */
export function show() {}
