import { flagOf, type JsonObject } from "../json.js";
import { invalid } from "../unsupported.js";
import type { Model } from "./model.js";
import { byteTokens, neighboursIn } from "./vocab.js";

/** How much worse than the worst piece an unknown character is. */
const UNKNOWN_PENALTY = 10;
const encoder = new TextEncoder();

interface TrieNode {
  readonly children: Map<number, TrieNode>;
  id: number;
}

/** The likeliest pieces of a word, as SentencePiece's unigram model has them. @throws SegueError TOKENIZER_INVALID */
export function unigram(part: JsonObject): Model {
  const { pieces, scores, unknown } = readPieces(part);
  const vocab = new Map(pieces.map((piece, id) => [piece, id]));
  const byteIds = flagOf(part, "byte_fallback", false) ? byteTokens(vocab) : undefined;
  const root: TrieNode = { children: new Map(), id: -1 };
  for (const [piece, id] of vocab) if (piece !== "") insert(root, piece, id);
  const unknownScore = scores.reduce((least, score) => Math.min(least, score), Infinity) - UNKNOWN_PENALTY;
  let joined: Set<string> | undefined;

  /** Ids for a run of characters that no piece covers. */
  const fallback = (text: string, out: number[]): void => {
    const id = vocab.get(text);
    if (id !== undefined) {
      out.push(id);
      return;
    }
    const bytes = byteIds && Array.from(encoder.encode(text), (byte) => byteIds[byte]);
    if (bytes?.every((byte) => byte !== undefined)) for (const byte of bytes) out.push(byte);
    else out.push(unknown!);
  };

  return {
    vocab,
    encode(word, out, from) {
      const { length } = word;
      const best = new Float64Array(length + 1);
      const ids = new Int32Array(length + 1);
      const starts = new Int32Array(length + 1).fill(-1);
      best[0] = from;
      const offer = (start: number, end: number, id: number, score: number): void => {
        if (starts[end] !== -1 && score <= best[end]!) return;
        best[end] = score;
        starts[end] = start;
        ids[end] = id;
      };
      for (let start = 0; start < length;) {
        const here = best[start]!;
        const one = word.codePointAt(start)! > 0xffff ? 2 : 1;
        let single = false;
        let node = root.children.get(word.charCodeAt(start));
        for (let end = start + 1; node; end++) {
          if (node.id >= 0) {
            offer(start, end, node.id, scores[node.id]! + here);
            single ||= end === start + one;
          }
          node = end < length ? node.children.get(word.charCodeAt(end)) : undefined;
        }
        if (!single) {
          if (unknown === undefined) throw invalid("its model has no unk_id, and a text has a character that it does not know");
          offer(start, start + one, unknown, unknownScore + here);
        }
        start += one;
      }
      const ends: number[] = [];
      for (let end = length; end > 0; end = starts[end]!) ends.push(end);
      ends.reverse();
      let run = -1;
      for (const end of ends) {
        if (ids[end] === unknown) {
          if (run < 0) run = starts[end]!;
          continue;
        }
        if (run >= 0) fallback(word.slice(run, starts[end]), out);
        run = -1;
        out.push(ids[end]!);
      }
      if (run >= 0) fallback(word.slice(run), out);
      return best[length]!;
    },
    joins(left, right) {
      if (!vocab.has(left) || !vocab.has(right)) return true;
      joined ??= neighboursIn(pieces);
      return joined.has(left + right);
    },
  };
}

function insert(root: TrieNode, piece: string, id: number): void {
  let node = root;
  for (let at = 0; at < piece.length; at++) {
    const code = piece.charCodeAt(at);
    let child = node.children.get(code);
    if (!child) {
      child = { children: new Map(), id: -1 };
      node.children.set(code, child);
    }
    node = child;
  }
  node.id = id;
}

function readPieces(part: JsonObject): { pieces: string[]; scores: number[]; unknown: number | undefined } {
  const value = part["vocab"];
  if (!Array.isArray(value)) throw invalid("its model has no vocabulary");
  const pieces: string[] = [];
  const scores: number[] = [];
  value.forEach((entry: unknown, id) => {
    const [piece, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof piece !== "string" || typeof score !== "number") throw invalid(`its piece ${id} is no text with a score`);
    pieces.push(piece);
    scores.push(score);
  });
  const unknown = part["unk_id"] ?? undefined;
  if (unknown !== undefined && !(typeof unknown === "number" && unknown >= 0 && unknown < pieces.length)) {
    throw invalid("its unk_id is not in its vocabulary");
  }
  return { pieces, scores, unknown };
}
