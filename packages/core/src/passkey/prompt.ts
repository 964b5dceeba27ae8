import { SegueError } from "../errors.js";
import { randomStream } from "../random.js";
import type { PasskeyEvaluationSpec } from "../spec/job-spec.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { drawKey, PASSKEY_TEMPLATES } from "./text.js";
import { countTokens, readTokens, type TokenRun } from "./token-runs.js";

type Encoder = Pick<Tokenizer, "encode">;

export interface PasskeyPromptOptions {
  readonly tokenizer: Encoder;
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

/** Takes the same memory at any length: its tokens are read piece by piece. */
export interface PasskeyPrompt {
  readonly tokens: number;
  /** Tokens before the needle's block: those of any prompt with this template and that many blocks before the needle, whatever the key. */
  readonly sharedTokens: number;
  /** `count` tokens from number `from` on. */
  readonly read: (from: number, count: number) => Int32Array;
  /** The key; an answer is right when it occurs in the text decoded after the prompt. */
  readonly answer: string;
  /** How many tokens to decode: the paper's five, or what the answer needs. */
  readonly answerTokens: number;
}

/**
 * A passkey prompt as the paper's generator builds it (paper.md section 4.2): as many noise blocks as fit between prefix and question,
 * the block number floor(depth * (blocks - 1)) replaced by the needle. A function of its arguments alone. Blocks are encoded one by one
 * where that gives the tokens of the whole text, as it does for bytes and for tokenizers that part words before the space.
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
  const key = needle(answer);
  const first: Piece = { text: prefix + (needleAt === 0 ? key : noise), times: 1 };
  const before: Piece[] = needleAt === 0 ? [] : [first, { text: separator + noise, times: needleAt - 1 }];
  const after: Piece[] = [
    needleAt === 0 ? first : { text: separator + key, times: 1 },
    { text: separator + noise, times: blocks - 1 - needleAt },
    { text: separator + question, times: 1 },
  ];
  const piecewise = partsCleanly(tokenizer, [...before, ...after]);
  const runs = piecewise
    ? [...before, ...after].map((piece, index) => encodePiece(tokenizer, piece, index))
    : [wholeText(tokenizer, [...before, ...after])];
  return {
    tokens: countTokens(runs),
    sharedTokens: piecewise ? countTokens(runs.slice(0, before.length)) : 0,
    read: (from, count) => readTokens(runs, from, count),
    answer,
    answerTokens: Math.max(5, tokenizer.encode(` ${answer}`, true).length),
  };
}

interface Piece {
  readonly text: string;
  readonly times: number;
}

function encodePiece(tokenizer: Encoder, { text, times }: Piece, index: number): TokenRun {
  return { tokens: tokenizer.encode(text, index > 0), times };
}

function wholeText(tokenizer: Encoder, pieces: readonly Piece[]): TokenRun {
  return encodePiece(tokenizer, { text: pieces.map(({ text, times }) => text.repeat(times)).join(""), times: 1 }, 0);
}

/** Whether the tokens of the pieces, one after the other, are those of their text; every junction of two pieces is tried once. */
function partsCleanly(tokenizer: Encoder, pieces: readonly Piece[]): boolean {
  const junctions = pieces.map(({ text, times }) => ({ text, times: Math.min(2, times) }));
  const whole = wholeText(tokenizer, junctions).tokens;
  const parts = junctions.map((piece, index) => encodePiece(tokenizer, piece, index));
  return whole.length === countTokens(parts) && readTokens(parts, 0, whole.length).every((token, at) => token === whole[at]);
}

/** The shortest context for which a prompt can be built. */
export function minimumPasskeyPromptTokens(
  tokenizer: Encoder,
  template: PasskeyEvaluationSpec["template"],
  digits: number,
): number {
  const { fixed, block } = measure(tokenizer, template, digits);
  return fixed + block;
}

/** Tokens of what is always there, and of one block: the noise, unless a long key makes the needle longer. */
function measure(
  tokenizer: Encoder,
  template: PasskeyEvaluationSpec["template"],
  digits: number,
): { fixed: number; block: number } {
  const { prefix, noise, needle, question, separator } = PASSKEY_TEMPLATES[template];
  const count = (text: string): number => tokenizer.encode(text, true).length;
  return {
    fixed: tokenizer.encode(prefix).length + count(question),
    block: Math.max(count(separator + noise), count(separator + needle("8".repeat(digits)))),
  };
}
