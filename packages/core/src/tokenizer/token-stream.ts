import { SegueError } from "../errors.js";
import type { CutKind, Pipeline } from "./pipeline.js";

/** Characters encoded at once, or a few more. */
const PIECE = 8192;
/** The longest text that is kept until a place to cut it comes. */
const LONGEST = 1 << 22;

/** Turns a text that arrives in parts into the ids of the whole, wherever it is parted and however long it is. */
export interface TokenStream {
  /** The ids that are certain with this part. @throws SegueError TEXT_UNBROKEN */
  push(text: string): number[];
  /** The ids of what is left at the end of the text. */
  end(): number[];
}

/** Cuts the text only where the tokenizer's own steps say that no id depends on both sides; see {@link Pipeline.cut}. */
export class PieceStream implements TokenStream {
  readonly #pipeline: Pipeline;
  readonly #piece: number;
  readonly #longest: number;
  #buffer = "";
  /** Before here there is no place to cut. */
  #searched = 0;
  #opens = true;
  #from = 0;

  /** @param piece characters after which a place to cut is looked for @param longest characters that are kept at most */
  constructor(pipeline: Pipeline, piece = PIECE, longest = LONGEST) {
    this.#pipeline = pipeline;
    this.#piece = piece;
    this.#longest = longest;
  }

  push(text: string): number[] {
    this.#buffer += text;
    const ids: number[] = [];
    for (let kind = this.#findCut(); kind; kind = this.#findCut()) {
      const piece = this.#buffer.slice(0, this.#searched);
      this.#buffer = this.#buffer.slice(this.#searched);
      this.#encode(piece, kind, ids);
    }
    if (this.#buffer.length > this.#longest) {
      throw new SegueError(
        "TEXT_UNBROKEN",
        `A text has ${this.#longest} characters in a row without a place where its tokens surely part, from ` +
          `${JSON.stringify(this.#buffer.slice(0, 32))} on; break it up, or choose a tokenizer that parts such text.`,
        { status: "FAILED_PRECONDITION" },
      );
    }
    return ids;
  }

  end(): number[] {
    const ids: number[] = [];
    if (this.#buffer !== "") this.#encode(this.#buffer, undefined, ids);
    this.#buffer = "";
    this.#searched = 0;
    this.#opens = true;
    this.#from = 0;
    return ids;
  }

  #encode(piece: string, kind: CutKind | undefined, ids: number[]): void {
    const edges = { opens: this.#opens, closes: kind === undefined, from: this.#from };
    const left = this.#pipeline.encode(piece, edges, ids);
    this.#from = kind === "token" ? left : 0;
    this.#opens = false;
    this.#searched = 0;
  }

  /** Moves to the first place to cut behind a piece's length; undefined: there is none in what has come so far. */
  #findCut(): CutKind | undefined {
    const buffer = this.#buffer;
    let at = Math.max(this.#searched, this.#piece);
    if (at >= buffer.length) return undefined;
    if (isLow(buffer.charCodeAt(at))) at++;
    while (at < buffer.length) {
      const left = isLow(buffer.charCodeAt(at - 1)) ? buffer.slice(at - 2, at) : buffer[at - 1]!;
      const right = isHigh(buffer.charCodeAt(at)) ? buffer.slice(at, at + 2) : buffer[at]!;
      if (isHigh(right.charCodeAt(0)) && right.length === 1) break;
      this.#searched = at;
      const kind = this.#pipeline.cut(left, right);
      if (kind) return kind;
      at += right.length;
    }
    this.#searched = Math.min(at, buffer.length);
    return undefined;
  }
}

const isHigh = (code: number): boolean => code >= 0xd800 && code <= 0xdbff;
const isLow = (code: number): boolean => code >= 0xdc00 && code <= 0xdfff;
