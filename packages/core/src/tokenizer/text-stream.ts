import type { Tokenizer } from "./tokenizer.js";

/** Tokens kept before those that are not shown yet: what a token reads as may depend on the one before it. */
const CONTEXT_TOKENS = 4;
/** A character is spread over at most four tokens; longer runs of what is no text are shown as they are. */
const MAX_PENDING = 8;

/** Turns tokens into text as they come: what it has said stays true, whatever follows. */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, "decode">;
  #context: number[] = [];
  #pending: number[] = [];

  constructor(tokenizer: Pick<Tokenizer, "decode">) {
    this.#tokenizer = tokenizer;
  }

  /** The text that is certain with this token; empty in the middle of a character. */
  push(token: number): string {
    this.#pending.push(token);
    const text = this.#pendingText();
    return text.endsWith("\uFFFD") && this.#pending.length < MAX_PENDING ? "" : this.#take(text);
  }

  /** What is left at the end. */
  end(): string {
    return this.#take(this.#pendingText());
  }

  #pendingText(): string {
    const before = this.#tokenizer.decode(this.#context);
    return this.#tokenizer.decode([...this.#context, ...this.#pending]).slice(before.length);
  }

  #take(text: string): string {
    this.#context = [...this.#context, ...this.#pending].slice(-CONTEXT_TOKENS);
    this.#pending = [];
    return text;
  }
}
