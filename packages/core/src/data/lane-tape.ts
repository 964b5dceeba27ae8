import type { DocumentChunk, DocumentSource } from "./document-source.js";

/** A run of a lane's tape, written into arrays of equal length. */
export interface TapeTarget {
  readonly tokens: Int32Array;
  /** Loss weight of the token as a label. */
  readonly weights: Float32Array;
  /** 1: the first token of a document. */
  readonly starts: Uint8Array;
}

/** Where the next token of a tape comes from; document null: from the next document taken. */
export interface TapePosition {
  readonly document: number | null;
  readonly position: number;
}

/**
 * One lane's endless tape: the tokens of a document and the end token, then the next document. Documents are taken through `takeNext`,
 * which returns null when there are no more, and are read as streams: no more than a chunk (and `minTokens` when one is opened) is held.
 */
export class LaneTape {
  readonly #source: DocumentSource;
  readonly #eosId: number;
  readonly #takeNext: () => Promise<OpenDocument | null>;
  #open: OpenDocument | null = null;
  /** Tokens of the open document's tape that have been read; its end token is the last of them. */
  #position = 0;
  #lastDocument: number | null = null;
  #resume: TapePosition;

  constructor(source: DocumentSource, eosId: number, from: TapePosition, takeNext: () => Promise<OpenDocument | null>) {
    this.#source = source;
    this.#eosId = eosId;
    this.#takeNext = takeNext;
    this.#resume = from;
  }

  /** Reads up to `count` tokens into the target from index `at` on. @returns how many; fewer only when the lane has run dry */
  async read(target: TapeTarget, at: number, count: number): Promise<number> {
    let done = 0;
    while (done < count) {
      const document = this.#open ?? (await this.#openNext());
      if (!document) break;
      const run = document.run() ?? (await document.nextRun());
      if (!run) {
        target.tokens[at + done] = this.#eosId;
        target.weights[at + done] = 1;
        target.starts[at + done] = 0;
        done++;
        this.#position++;
        this.#open = null;
        continue;
      }
      const size = Math.min(count - done, run.tokens.length - document.at);
      for (let i = 0; i < size; i++) {
        const from = document.at + i;
        target.tokens[at + done + i] = run.tokens[from] ?? 0;
        target.weights[at + done + i] = run.weights ? (run.weights[from] ?? 1) : 1;
        target.starts[at + done + i] = 0;
      }
      if (this.#position === 0) target.starts[at + done] = 1;
      document.at += size;
      this.#position += size;
      done += size;
    }
    return done;
  }

  /** Where the last token read came from; a tape opened there reads that token first. */
  get lastPosition(): TapePosition {
    return { document: this.#lastDocument, position: this.#position - 1 };
  }

  async close(): Promise<void> {
    await this.#open?.close();
    this.#open = null;
  }

  async #openNext(): Promise<OpenDocument | null> {
    const { document, position } = this.#resume;
    this.#resume = { document: null, position: 0 };
    const opened = document === null ? await this.#takeNext() : new OpenDocument(this.#source, document, position);
    if (opened) {
      this.#open = opened;
      this.#position = opened.firstToken;
      this.#lastDocument = opened.document;
    }
    return opened;
  }
}

/** A document being read. */
export class OpenDocument {
  /** Tokens of the current run that have been used. */
  at = 0;
  readonly document: number;
  readonly firstToken: number;
  readonly #iterator: AsyncIterator<DocumentChunk>;
  #ahead: DocumentChunk[] = [];
  #current: DocumentChunk | undefined;

  constructor(source: DocumentSource, document: number, firstToken: number) {
    this.document = document;
    this.firstToken = firstToken;
    this.#iterator = source.open(document, firstToken)[Symbol.asyncIterator]();
  }

  /** Whether the document has at least this many tokens; what is read to find out is kept. */
  async hasTokens(count: number): Promise<boolean> {
    let seen = 0;
    while (seen < count) {
      const next = await this.#iterator.next();
      if (next.done) return false;
      this.#ahead.push(next.value);
      seen += next.value.tokens.length;
    }
    return true;
  }

  /** The current run if any of it is left. */
  run(): DocumentChunk | undefined {
    return this.#current && this.at < this.#current.tokens.length ? this.#current : undefined;
  }

  /** The next run that is not empty; undefined at the document's end. */
  async nextRun(): Promise<DocumentChunk | undefined> {
    for (;;) {
      const ahead = this.#ahead.shift();
      const next = ahead ?? (await this.#pull());
      if (!next) return undefined;
      if (next.tokens.length === 0) continue;
      this.#current = next;
      this.at = 0;
      return next;
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #pull(): Promise<DocumentChunk | undefined> {
    const next = await this.#iterator.next();
    return next.done ? undefined : next.value;
  }
}
