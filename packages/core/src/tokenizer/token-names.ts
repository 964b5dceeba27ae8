/**
 * Ids and names in the content of a Hugging Face `tokenizer.json`: those of its added tokens, which are taken out of a text before
 * anything else is done, and those of its model's vocabulary.
 */

type Json = Readonly<Record<string, unknown>>;

/** Names of the added tokens by their ids. */
export function addedTokens(tokenizer: unknown): Map<number, string> {
  const listed = isRecord(tokenizer) && Array.isArray(tokenizer["added_tokens"]) ? (tokenizer["added_tokens"] as unknown[]) : [];
  const tokens = new Map<number, string>();
  for (const token of listed) {
    if (!isRecord(token)) continue;
    const { id, content } = token;
    if (typeof id === "number" && typeof content === "string") tokens.set(id, content);
  }
  return tokens;
}

/** The id of a token by its name; undefined when there is none of this name. */
export function tokenId(tokenizer: unknown, name: string): number | undefined {
  for (const [id, content] of addedTokens(tokenizer)) if (content === name) return id;
  const model = isRecord(tokenizer) && isRecord(tokenizer["model"]) ? tokenizer["model"] : {};
  const vocab = model["vocab"];
  // Unigram lists pairs of piece and score; the place is the id.
  if (Array.isArray(vocab)) {
    const at = vocab.findIndex((entry) => Array.isArray(entry) && entry[0] === name);
    return at < 0 ? undefined : at;
  }
  if (!isRecord(vocab) || !Object.hasOwn(vocab, name)) return undefined;
  const id = vocab[name];
  return typeof id === "number" ? id : undefined;
}

function isRecord(value: unknown): value is Json {
  return typeof value === "object" && value !== null;
}
