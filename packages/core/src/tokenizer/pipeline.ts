import { AddedTokenFinder, readAddedTokens, type AddedToken } from "./added-tokens.js";
import { createDecoder } from "./decoders.js";
import type { JsonObject } from "./json.js";
import { createModel } from "./models/create-model.js";
import type { Model } from "./models/model.js";
import type { Neighbours, Normalizer } from "./normalizer.js";
import { createNormalizer } from "./normalizers.js";
import { createPreTokenizers, type Place, type PreTokenizer } from "./pre-tokenizers.js";

/** Where a piece of a document stands, and what the model left where the piece before it was cut. */
export interface PieceEdges {
  /** Whether the document begins with it. */
  readonly opens: boolean;
  /** Whether the document ends with it. */
  readonly closes: boolean;
  /** What {@link Pipeline.encode} returned for the piece before; 0 where that ended with a word. */
  readonly from: number;
}

/** What a cut falls on: the end of a word, or a place within one where no token reaches across. */
export type CutKind = "word" | "token";

const CACHED_WORDS = 1 << 16;
const CACHED_LENGTH = 64;

/** All steps of a tokenizer.json from text to ids and back, those of the Python library. */
export class Pipeline {
  readonly added: readonly AddedToken[];
  readonly model: Model;
  readonly #normalizer: Normalizer;
  readonly #preTokenizers: readonly PreTokenizer[];
  /** What the last pre-tokenizer does to each piece, done only to words that are not cached. */
  readonly #lastMap: ((piece: string) => string) | undefined;
  readonly #raw: AddedTokenFinder;
  readonly #normalized: AddedTokenFinder;
  readonly #decoder: (tokens: readonly string[]) => string;
  readonly #texts = new Map<number, string>();
  readonly #special = new Set<string>();
  readonly #words = new Map<string, { readonly ids: readonly number[]; readonly left: number }>();
  readonly #cuts = new Map<string, CutKind | undefined>();

  /** @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
  constructor(json: JsonObject) {
    this.model = createModel(json["model"]);
    this.#normalizer = createNormalizer(json["normalizer"]);
    this.#preTokenizers = createPreTokenizers(json["pre_tokenizer"]);
    this.#lastMap = this.#preTokenizers.at(-1)?.map;
    this.#decoder = createDecoder(json["decoder"]);
    this.added = readAddedTokens(json["added_tokens"], this.model.vocab, this.#normalizer);
    const marksBegin = this.#normalizer.marksBegin || this.#preTokenizers[0]?.marksBegin === true;
    const [raw, normalized] = [false, true].map((kind) => this.added.filter((token) => token.normalized === kind));
    this.#raw = new AddedTokenFinder(raw!, marksBegin);
    this.#normalized = new AddedTokenFinder(normalized!, marksBegin);
    for (const [text, id] of this.model.vocab) this.#texts.set(id, text);
    for (const { id, pattern, special, content } of this.added) {
      this.#texts.set(id, pattern);
      if (special) this.#special.add(content);
    }
  }

  /** Appends the ids of a piece of a document. @returns what the piece after it goes on from */
  encode(text: string, { opens, closes, from }: PieceEdges, out: number[]): number {
    let left = from;
    const sections = this.#raw.split(text);
    sections.forEach((section, index) => {
      if (typeof section !== "string") {
        out.push(section.id);
        left = 0;
        return;
      }
      const first = index === 0;
      const begins = opens || !first;
      const normalized = this.#normalizer.apply(section, { begins, ends: closes || index < sections.length - 1 });
      this.#normalized.split(normalized).forEach((part, at) => {
        if (typeof part !== "string") {
          out.push(part.id);
          left = 0;
        } else if (part !== "") {
          left = this.#encodeSection(part, { begins: begins || at > 0, opens: opens && first && at === 0 }, left, out);
        }
      });
    });
    return left;
  }

  /** The text of ids, without special tokens; unknown ids are left out. */
  decode(ids: readonly number[]): string {
    const tokens = ids.map((id) => this.#texts.get(id)).filter((text) => text !== undefined && !this.#special.has(text));
    return this.#decoder(tokens as string[]);
  }

  /**
   * Whether a document may be cut between these neighbours, whatever stands before and after them: the ids of both sides, one after the
   * other, are those of the whole.
   */
  cut(left: string, right: string): CutKind | undefined {
    const key = left + right;
    const known = this.#cuts.get(key);
    if (known !== undefined || this.#cuts.has(key)) return known;
    const found = this.#findCut({ left: [left], right: [right] });
    if (this.#cuts.size > CACHED_WORDS) this.#cuts.clear();
    this.#cuts.set(key, found);
    return found;
  }

  #findCut(raw: Neighbours): CutKind | undefined {
    if (this.#raw.joins(raw)) return undefined;
    let between = this.#normalizer.neighbours(raw);
    if (!between || this.#normalized.joins(between)) return undefined;
    for (const [index, step] of this.#preTokenizers.entries()) {
      // A prefix is put before every piece, so it must be sure that one begins here.
      if (step.marksBegin && index > 0) return undefined;
      const cut = step.cut(between);
      if (!cut) return undefined;
      if (cut.parts) return "word";
      between = cut.between;
    }
    const { left, right } = between;
    return left.some((before) => right.some((next) => this.model.joins(before, next))) ? undefined : "token";
  }

  #encodeSection(text: string, place: Place, from: number, out: number[]): number {
    let pieces = [text];
    this.#preTokenizers.forEach((step, index) => {
      const next: string[] = [];
      const map = index < this.#preTokenizers.length - 1 ? step.map : undefined;
      pieces.forEach((piece, at) => {
        // Behind the first step, every piece begins anew; the first may be the document's begin.
        const here = index === 0 ? place : { begins: true, opens: place.opens && at === 0 && text.startsWith(piece) };
        step.split(map ? map(piece) : piece, here, next);
      });
      pieces = next;
    });
    let left = 0;
    for (const [index, piece] of pieces.entries()) {
      const start = index === 0 ? from : 0;
      left = start === 0 ? this.#encodeWord(piece, out) : this.model.encode(this.#mapped(piece), out, start);
    }
    return left;
  }

  #encodeWord(word: string, out: number[]): number {
    const known = this.#words.get(word);
    if (known) {
      for (const id of known.ids) out.push(id);
      return known.left;
    }
    const before = out.length;
    const left = this.model.encode(this.#mapped(word), out, 0);
    if (word.length <= CACHED_LENGTH) {
      if (this.#words.size >= CACHED_WORDS) this.#words.clear();
      this.#words.set(word, { ids: out.slice(before), left });
    }
    return left;
  }

  #mapped(word: string): string {
    return this.#lastMap ? this.#lastMap(word) : word;
  }
}
