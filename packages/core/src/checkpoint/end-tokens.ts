/** The parsed files of a model folder that may name its end token; absent: the folder does not have them. */
export interface EndTokenFiles {
  readonly generationConfig?: unknown;
  readonly config?: unknown;
  readonly tokenizerConfig?: unknown;
  readonly specialTokensMap?: unknown;
}

/**
 * The tokens that end a text, from the first of these places that names one: `eos_token_id` of `generation_config.json`, then of
 * `config.json`, each a number or a list, as transformers' `generate` takes them; then `eos_token` of `tokenizer_config.json` and of
 * `special_tokens_map.json`, each a name or an object with its `content`.
 * @param vocab ids from here on are no tokens, and name nothing
 * @param idOf the id of a token by its name
 * @returns empty when none is named
 */
export function namedEndTokens(files: EndTokenFiles, vocab: number, idOf: (name: string) => number | undefined): number[] {
  const isToken = (id: unknown): id is number => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocab;
  for (const file of [files.generationConfig, files.config]) {
    const ids = [fieldOf(file, "eos_token_id")].flat().filter(isToken);
    if (ids.length > 0) return [...new Set(ids)];
  }
  for (const file of [files.tokenizerConfig, files.specialTokensMap]) {
    const named = fieldOf(file, "eos_token");
    const name = typeof named === "string" ? named : fieldOf(named, "content");
    const id = typeof name === "string" ? idOf(name) : undefined;
    if (isToken(id)) return [id];
  }
  return [];
}

function fieldOf(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}
