const PIECE_CHARACTERS = 8192;
const LONGEST_PIECE_CHARACTERS = 1 << 20;
const WORD_END = /\S(?=\s)/gu;

/**
 * Cuts a text that arrives in chunks into pieces that are tokenized one by one. The rule depends on the text alone, not on the chunks: a
 * piece ends before the first white space that follows a word at or after its 8,192nd character, so that white space begins the next
 * piece; text without white space is cut after 1,048,576 characters. Tokenizers that split at words before they merge (GPT-2, GPT-NeoX,
 * Llama 3 and the like) give the same tokens as for the whole text.
 */
export async function* textPieces(chunks: AsyncIterable<string>): AsyncGenerator<string> {
  let buffer = "";
  for await (const chunk of chunks) {
    buffer += chunk;
    for (let end = pieceEnd(buffer); end > 0; end = pieceEnd(buffer)) {
      yield buffer.slice(0, end);
      buffer = buffer.slice(end);
    }
  }
  if (buffer.length > 0) yield buffer;
}

/** Where the first piece of the buffer ends; 0: not known yet. */
function pieceEnd(buffer: string): number {
  if (buffer.length <= PIECE_CHARACTERS) return 0;
  WORD_END.lastIndex = PIECE_CHARACTERS - 1;
  const match = WORD_END.exec(buffer);
  const end = match ? match.index + match[0].length : buffer.length;
  if (match && end <= LONGEST_PIECE_CHARACTERS) return end;
  if (end <= LONGEST_PIECE_CHARACTERS) return 0;
  const splitsPair = /[\uD800-\uDBFF]/.test(buffer.charAt(LONGEST_PIECE_CHARACTERS - 1));
  return splitsPair ? LONGEST_PIECE_CHARACTERS - 1 : LONGEST_PIECE_CHARACTERS;
}
