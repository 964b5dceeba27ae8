import { readTokens } from "../passkey/token-runs.js";
import { passkeyPrompt } from "../passkey/prompt.js";
import { randomStream } from "../random.js";
import type { PromptKind } from "../spec/job-spec.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";

/** An endless text; read in pieces, so that a million tokens take no memory. */
export interface PositionPrompt {
  /** `count` tokens from number `from` on. */
  readonly read: (from: number, count: number) => Int32Array;
}

/** Newlines encoded at once: many, so that a tokenizer joins as many as it can (GPT-NeoX makes one token of eight). */
const NEWLINES = 4096;
const BLOCK_TOKENS = 1024;

/** A prompt that takes no documents. */
export interface GeneratedPrompt {
  readonly prompt: Exclude<PromptKind, "corpus">;
  readonly seed: number;
  /** At least what is read. */
  readonly tokens: number;
}

/**
 * Prompt number `index` of an evaluation of loss by position, in the ways that the authors found to behave alike (paper.md section 1.4):
 * newlines alone, which give the smoothest curves, a text about a passkey, or tokens drawn uniformly. A function of its arguments alone.
 */
export function positionPrompt(tokenizer: Tokenizer, { prompt, seed, tokens }: GeneratedPrompt, index: number): PositionPrompt {
  switch (prompt) {
    case "newlines":
      return repeated(tokenizer.encode("\n".repeat(NEWLINES)));
    case "passkey":
      return passkeyText(tokenizer, seed, tokens, index);
    case "random":
      return randomTokens(tokenizer.vocab, seed, index);
  }
}

function repeated(tokens: readonly number[]): PositionPrompt {
  return { read: (from, count) => readTokens([{ tokens, times: Infinity }], from, count) };
}

/**
 * The passkey text's filler behind a passkey; the question, and what is left after it, is filler again. The key comes first, within any
 * training length: nobody can guess its digits, which further on would look like a collapse.
 */
function passkeyText(tokenizer: Tokenizer, seed: number, tokens: number, index: number): PositionPrompt {
  const options = { tokenizer, depth: 0, digits: 5, seed, sample: index, template: "paper" } as const;
  // Longer than what is read by the shortening of a prompt to whole blocks, and by one token to predict.
  const { read } = passkeyPrompt({ ...options, contextTokens: tokens + 512 });
  return { read };
}

function randomTokens(vocab: number, seed: number, index: number): PositionPrompt {
  const block = (number: number): Int32Array => {
    const random = randomStream(seed, "position-prompt", index, number);
    return Int32Array.from({ length: BLOCK_TOKENS }, () => random.below(vocab));
  };
  return {
    read: (from, count) => {
      const read = new Int32Array(count);
      for (let filled = 0; filled < count;) {
        const at = from + filled;
        const offset = at % BLOCK_TOKENS;
        const part = block(Math.floor(at / BLOCK_TOKENS)).subarray(offset, offset + count - filled);
        read.set(part, filled);
        filled += part.length;
      }
      return read;
    },
  };
}
