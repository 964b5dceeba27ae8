import { passkeyPrompt, wilsonInterval, type PasskeyPrompt, type Tokenizer } from "@segue/core";
import { greedyDecode, prefillPrompt, type Engine, type LaneStates } from "@segue/engine";
import type { PasskeyCell, PasskeyCellResult } from "./cell.js";
import { SEGMENT_TOKENS, type PrefixStates } from "./prefix-states.js";

/** Prompts fed at once: enough to keep the device busy, few enough for one state each. */
const MAX_LANES = 16;
const KEPT_ANSWERS = 4;

export interface PasskeySubject {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** Of the job's training, and so of the control that zeroes the state at its boundaries. */
  readonly segmentTokens: number;
  /** Of the engine's model. */
  readonly prefixes: PrefixStates;
}

interface Answer {
  readonly expected: string;
  readonly decoded: string;
}

/**
 * Accuracy of greedy retrieval at one length and depth (paper.md section 4): every prompt is prefilled with the state carried, then as many
 * tokens as the answer needs are decoded; right when the key occurs in them. What comes before the needle is run once for all prompts. Ends
 * early when the accuracy's interval is narrower than `stopWidth`. Counts and answers are a function of the model and the cell alone.
 */
export function evaluatePasskeyCell(
  subject: PasskeySubject,
  cell: PasskeyCell,
  onPrompt?: (done: number) => void,
): PasskeyCellResult {
  const startedAt = performance.now();
  const ranBefore = subject.prefixes.tokensRun;
  const prompts = Array.from({ length: cell.samples }, (_, sample) =>
    passkeyPrompt({ ...cell, tokenizer: subject.tokenizer, contextTokens: cell.length, sample }),
  );
  const answers: Answer[] = [];
  let correct = 0;
  let tokens = 0;
  const batchSize = cell.stopWidth > 0 ? MAX_LANES : prompts.length;
  for (let start = 0; start < prompts.length && !isSettled(correct, start, cell.stopWidth); start += batchSize) {
    for (const group of equalLengthGroups(prompts.slice(start, start + batchSize))) {
      const found = answerGroup(subject, cell, group);
      tokens += found.tokens;
      answers.push(...found.answers);
      onPrompt?.(answers.length);
    }
    correct = answers.filter(({ expected, decoded }) => decoded.includes(expected)).length;
  }
  return {
    length: cell.length,
    depth: cell.depth,
    correct,
    samples: answers.length,
    interval: wilsonInterval(correct, answers.length),
    ms: Math.round(performance.now() - startedAt),
    tokens: tokens + subject.prefixes.tokensRun - ranBefore,
    answers: answers.slice(0, KEPT_ANSWERS),
  };
}

function isSettled(correct: number, samples: number, stopWidth: number): boolean {
  if (samples === 0) return false;
  const { low, high } = wilsonInterval(correct, samples);
  return high - low < stopWidth;
}

/** Prompts of one batch have the same number of tokens: padding would have to be hidden from a recurrent state. */
function equalLengthGroups(prompts: readonly PasskeyPrompt[]): PasskeyPrompt[][] {
  const groups: PasskeyPrompt[][] = [];
  const open = new Map<string, PasskeyPrompt[]>();
  for (const prompt of prompts) {
    const shape = `${prompt.tokens} ${prompt.sharedTokens} ${prompt.answerTokens}`;
    const group = open.get(shape);
    if (group && group.length < MAX_LANES) group.push(prompt);
    else {
      const fresh = [prompt];
      open.set(shape, fresh);
      groups.push(fresh);
    }
  }
  return groups;
}

function answerGroup(
  subject: PasskeySubject,
  cell: PasskeyCell,
  prompts: readonly PasskeyPrompt[],
): { answers: Answer[]; tokens: number } {
  const { engine, tokenizer } = subject;
  const [first] = prompts;
  if (!first) return { answers: [], tokens: 0 };
  const lanes = prompts.length;
  const { states, from } = cell.carryState ? forkedStates(subject, first, lanes) : controlStates(subject, first, lanes);
  try {
    const tokens = first.tokens - from;
    const read = (lane: number, at: number, count: number): Int32Array => prompts[lane]!.read(from + at, count);
    const logits_BV = prefillPrompt(engine, states, { lanes, tokens, read }, SEGMENT_TOKENS);
    const decoded_BT = greedyDecode(engine, states, logits_BV, first.answerTokens);
    const answers = prompts.map(({ answer, answerTokens }, lane) => ({
      expected: answer,
      decoded: tokenizer.decode(Array.from(decoded_BT.subarray(lane * answerTokens, (lane + 1) * answerTokens))),
    }));
    return { answers, tokens: lanes * (tokens + first.answerTokens - 1) };
  } finally {
    engine.freeStates(states);
  }
}

interface Start {
  readonly states: LaneStates;
  /** The prompts' first token that the states have not seen. */
  readonly from: number;
}

/** Every lane begins with the state that the filler before the needle leaves. */
function forkedStates({ engine, prefixes }: PasskeySubject, prompt: PasskeyPrompt, lanes: number): Start {
  const from = prompt.sharedTokens;
  if (from === 0) return { states: engine.createStates(lanes), from };
  const shared = prefixes.after(prompt, from);
  try {
    return { states: engine.forkStates(shared, 0, lanes), from };
  } finally {
    engine.freeStates(shared);
  }
}

/** States are zeroed at every boundary of the training's segments, so what comes before the last boundary is without effect. */
function controlStates({ engine, segmentTokens }: PasskeySubject, prompt: PasskeyPrompt, lanes: number): Start {
  const from = Math.floor((prompt.tokens - 1) / segmentTokens) * segmentTokens;
  return { states: engine.createStates(lanes), from };
}
