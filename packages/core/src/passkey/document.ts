import { skipTokens, type DocumentChunk, type DocumentSource } from "../data/document-source.js";
import { SegueError } from "../errors.js";
import { randomStream } from "../random.js";
import type { PasskeyDataSpec } from "../spec/job-spec.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { drawKey, PASSKEY_TEMPLATES } from "./text.js";

const { prefix, noise, needle, question, separator } = PASSKEY_TEMPLATES.paper;

/**
 * Training documents for passkey retrieval, without end: document i is a function of (seed, i). Each is the paper's prefix and noise, one
 * needle whose place is drawn between `minDepth` and `maxDepth`, and after it, in place of each noise block with probability
 * `askProbability`, question and answer; with `minAskProbability` every document has a probability of its own. Training on passkeys is a deviation from the paper, whose models never see the task (4.6).
 * @throws SegueError PASSKEY_TOO_SHORT when the documents cannot hold prefix, needle and a question
 */
export function passkeySource(tokenizer: Tokenizer, spec: PasskeyDataSpec, seed: number): DocumentSource {
  const least = minimumPasskeyDocumentTokens(tokenizer, spec.digits);
  if (spec.documentTokens < least) {
    throw new SegueError(
      "PASSKEY_TOO_SHORT",
      `Passkey documents need at least ${least} tokens, documentTokens is ${spec.documentTokens}.`,
    );
  }
  return {
    count: Infinity,
    open: (document, fromToken) => skipTokens(passkeyDocument(tokenizer, spec, seed, document), fromToken),
    close: () => Promise.resolve(),
  };
}

/** The tokens of training document number `document`, exactly `documentTokens` of them: the last block is cut where they end. */
export function* passkeyDocument(
  tokenizer: Tokenizer,
  spec: PasskeyDataSpec,
  seed: number,
  document: number,
): Generator<DocumentChunk, void, undefined> {
  const random = randomStream(seed, "passkey-document", document);
  const key = drawKey(random, spec.digits);
  const depth = spec.minDepth + (spec.maxDepth - spec.minDepth) * random.uniform();

  const start = tokenizer.encode(prefix + noise);
  const noiseTokens = tokenizer.encode(separator + noise, true);
  const needleTokens = tokenizer.encode(separator + needle(key), true);
  const ask = askingBlock(tokenizer, key, spec.answerWeight);
  const needleAt = Math.min(depth * spec.documentTokens, spec.documentTokens - needleTokens.length - ask.tokens.length);

  let left = spec.documentTokens;
  const cut = ({ tokens, weights }: DocumentChunk): DocumentChunk => {
    const size = Math.min(left, tokens.length);
    left -= size;
    if (size === tokens.length) return { tokens, weights };
    return { tokens: Array.from(tokens).slice(0, size), weights: weights && Array.from(weights).slice(0, size) };
  };

  yield cut({ tokens: start });
  while (spec.documentTokens - left + noiseTokens.length <= needleAt) yield cut({ tokens: noiseTokens });
  yield cut({ tokens: needleTokens });
  const askProbability = drawAskProbability(spec, seed, document);
  while (left > 0) yield cut(random.uniform() < askProbability ? ask : { tokens: noiseTokens });
}

/** Rare questions teach to keep the key for long, frequent ones to find it at all. */
function drawAskProbability({ askProbability, minAskProbability }: PasskeyDataSpec, seed: number, document: number): number {
  if (minAskProbability === undefined || minAskProbability === askProbability) return askProbability;
  const place = randomStream(seed, "passkey-ask", document).uniform();
  return minAskProbability * (askProbability / minAskProbability) ** place;
}

/** The shortest document that holds its first noise block, the needle and one question with its answer. */
export function minimumPasskeyDocumentTokens(tokenizer: Tokenizer, digits: number): number {
  const key = "8".repeat(digits);
  const text = prefix + noise + separator + needle(key) + separator + question + ` ${key}.`;
  return tokenizer.encode(text).length;
}

/** Question and answer; the answer's digits carry the answer's weight. */
function askingBlock(tokenizer: Tokenizer, key: string, answerWeight: number): DocumentChunk & { weights: number[] } {
  const before = tokenizer.encode(separator + question, true);
  const answer = tokenizer.encode(` ${key}`, true);
  const after = tokenizer.encode(".", true);
  const isDigit = (token: number): boolean => /[0-9]/.test(tokenizer.decode([token]));
  return {
    tokens: [...before, ...answer, ...after],
    weights: [...before.map(() => 1), ...answer.map((token) => (isDigit(token) ? answerWeight : 1)), ...after.map(() => 1)],
  };
}
