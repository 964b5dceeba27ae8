import type { Tokenizer } from "./tokenizer.js";

/**
 * The tokens of a UTF-8 text that arrives in parts, as training reads documents. Ids do not depend on where it is parted, and but for a
 * text without any place to cut it, memory does not depend on its length.
 * @throws SegueError TEXT_UNBROKEN
 */
export async function* documentTokens(
  bytes: AsyncIterable<Uint8Array>,
  tokenizer: Tokenizer,
): AsyncGenerator<number[], void, undefined> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const stream = tokenizer.stream();
  for await (const chunk of bytes) {
    const tokens = stream.push(decoder.decode(chunk, { stream: true }));
    if (tokens.length > 0) yield tokens;
  }
  yield [...stream.push(decoder.decode()), ...stream.end()];
}
