/** Numbers that JSON has no words for, as Python's `json` writes them, and the text around them that must stay as it is. */
const STRING_OR_WORD = /"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g;

/**
 * Reads JSON as Python's `json` reads it: with the bare words `Infinity`, `-Infinity` and `NaN`, which transformers 4 writes into
 * `config.json`. `{"__float__": "Infinity"}`, which transformers 5 writes instead, becomes the same number.
 * @throws SyntaxError when the text is neither
 */
export function parsePythonJson(text: string): unknown {
  const json = text.replace(STRING_OR_WORD, (found) => (found.startsWith('"') ? found : `{"__float__":"${found}"}`));
  return JSON.parse(json, (_key, value: unknown) => floatOf(value) ?? value) as unknown;
}

function floatOf(value: unknown): number | undefined {
  if (typeof value !== "object" || value === null || !("__float__" in value)) return undefined;
  const word = value.__float__;
  return typeof word === "string" && /^(-?Infinity|NaN)$/.test(word) ? Number(word) : undefined;
}
