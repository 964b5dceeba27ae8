/** Characters encoded at once. */
const PIECE = 1 << 16;

/**
 * A long text in pieces of at most 64K characters that can be encoded one by one: each ends before a space between two words, where
 * tokenizers part a text as well, and the pieces do not depend on how the text arrives. Without such a space a piece ends between two
 * characters.
 */
export async function* textPieces(text: AsyncIterable<string>, most = PIECE): AsyncGenerator<string, void, undefined> {
  let buffer = "";
  for await (const part of text) {
    buffer += part;
    while (buffer.length > most) {
      const end = pieceEnd(buffer, most);
      yield buffer.slice(0, end);
      buffer = buffer.slice(end);
    }
  }
  if (buffer !== "") yield buffer;
}

function pieceEnd(buffer: string, most: number): number {
  for (let end = most - 1; end > 0; end--) {
    if (buffer[end] === " " && /\S/.test(buffer[end - 1]!) && /\S/.test(buffer[end + 1] ?? "")) return end;
  }
  // Not between the halves of a surrogate pair.
  return most > 1 && /[\uD800-\uDBFF]/.test(buffer[most - 1]!) ? most - 1 : most;
}
