// Numbers in sentences.

/** A number and a noun: "1 photo", "1,234 photos". */
export function count(number, noun = "photo") {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
