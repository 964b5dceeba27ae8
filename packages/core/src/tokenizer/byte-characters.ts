/** GPT-2's printable character for each byte. */
const CHARACTERS: readonly string[] = (() => {
  const printable = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : 256 + others++));
})();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));
const encoder = new TextEncoder();

/** The bytes of a character as printable characters. */
export function byteCharacters(character: string): string {
  let text = "";
  for (const byte of encoder.encode(character)) text += CHARACTERS[byte]!;
  return text;
}

/** The bytes of a text as printable characters. */
export function toByteCharacters(text: string): string {
  let out = "";
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 0x80) return out + byteCharacters(text.slice(at));
    out += CHARACTERS[code]!;
  }
  return out;
}

/** The bytes that a token stands for: those of its characters, or of its text where one of them stands for no byte. */
export function bytesOfToken(token: string): ArrayLike<number> {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTES.get(character);
    if (byte === undefined) return encoder.encode(token);
    bytes.push(byte);
  }
  return bytes;
}
