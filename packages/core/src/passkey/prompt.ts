import { SegueError } from "../errors.js";
import { randomStream } from "../random.js";
import type { PasskeyEvaluationSpec } from "../spec/job-spec.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { drawKey, PASSKEY_TEMPLATES } from "./text.js";

export interface PasskeyPromptOptions {
  readonly tokenizer: Tokenizer;
  /** Nominal length; the prompt is at most this long, shorter by less than one noise block. */
  readonly contextTokens: number;
  /** Where the needle lies, as a share of the blocks, in [0, 1]. */
  readonly depth: number;
  readonly digits: number;
  readonly seed: number;
  /** Number of the prompt within its cell. */
  readonly sample: number;
  readonly template: PasskeyEvaluationSpec["template"];
}

export interface PasskeyPrompt {
  readonly promptTokens: number[];
  /** The key; an answer is right when it occurs in the text decoded after the prompt. */
  readonly answer: string;
  /** How many tokens to decode: the paper's five, or what the answer needs. */
  readonly answerTokens: number;
}

/**
 * A passkey prompt as the paper's generator builds it (paper.md section 4.2): as many noise blocks as fit between prefix and question,
 * the block number floor(depth * (blocks - 1)) replaced by the needle. A function of its arguments alone.
 * @throws SegueError PASSKEY_TOO_SHORT when not even one block fits
 */
export function passkeyPrompt(options: PasskeyPromptOptions): PasskeyPrompt {
  const { tokenizer, contextTokens, depth, digits, seed, sample, template } = options;
  const { prefix, noise, needle, question, separator } = PASSKEY_TEMPLATES[template];
  const { fixed, block } = measure(tokenizer, template, digits);
  const blocks = Math.floor((contextTokens - fixed) / block);
  if (blocks < 1) {
    const least = minimumPasskeyPromptTokens(tokenizer, template, digits);
    throw new SegueError("PASSKEY_TOO_SHORT", `A passkey prompt needs at least ${least} tokens, ${contextTokens} were asked for.`);
  }
  const answer = drawKey(randomStream(seed, "passkey-prompt", contextTokens, depth, sample), digits);
  const needleAt = Math.floor(depth * (blocks - 1));
  const body = Array.from({ length: blocks }, (_, index) => (index === needleAt ? needle(answer) : noise) + separator);
  return {
    promptTokens: tokenizer.encode(prefix + body.join("") + question),
    answer,
    answerTokens: Math.max(5, tokenizer.encode(` ${answer}`).length),
  };
}

/** The shortest context for which a prompt can be built. */
export function minimumPasskeyPromptTokens(
  tokenizer: Tokenizer,
  template: PasskeyEvaluationSpec["template"],
  digits: number,
): number {
  const { fixed, block } = measure(tokenizer, template, digits);
  return fixed + block;
}

/** Tokens of what is always there, and of one block: the noise, unless a long key makes the needle longer. */
function measure(
  tokenizer: Tokenizer,
  template: PasskeyEvaluationSpec["template"],
  digits: number,
): { fixed: number; block: number } {
  const { prefix, noise, needle, question, separator } = PASSKEY_TEMPLATES[template];
  const count = (text: string): number => tokenizer.encode(text).length;
  return {
    fixed: count(prefix) + count(question),
    block: Math.max(count(separator + noise), count(separator + needle("8".repeat(digits)))),
  };
}
