import { passkeyPrompt, type PasskeyPrompt, type Tokenizer } from "@segue/core";
import { greedyDecode, prefillPrompt, type Engine } from "@segue/engine";
import type { PasskeyCell, PasskeyCellResult } from "./cell.js";

/** Prompts fed at once: enough to keep the device busy, few enough for one state each. */
const MAX_LANES = 16;
/** Largest piece of a prompt in one forward pass; memory does not grow with the prompt. */
const MAX_SEGMENT_TOKENS = 1024;
const KEPT_ANSWERS = 4;

export interface PasskeySubject {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** Of the job's training, and so of the control that zeroes the state at its boundaries. */
  readonly segmentTokens: number;
}

/**
 * Accuracy of greedy retrieval at one length and depth (paper.md section 4): every prompt is prefilled with the state carried, then as many
 * tokens as the answer needs are decoded; right when the key occurs in them. A function of the model and the cell alone.
 */
export function evaluatePasskeyCell(
  subject: PasskeySubject,
  cell: PasskeyCell,
  onPrompt?: (done: number) => void,
): PasskeyCellResult {
  const startedAt = performance.now();
  const prompts = Array.from({ length: cell.samples }, (_, sample) =>
    passkeyPrompt({ ...cell, tokenizer: subject.tokenizer, contextTokens: cell.length, sample }),
  );
  const answers: { expected: string; decoded: string }[] = [];
  for (const group of equalLengthGroups(prompts)) {
    answers.push(...answerGroup(subject, cell, group));
    onPrompt?.(answers.length);
  }
  return {
    length: cell.length,
    depth: cell.depth,
    correct: answers.filter(({ expected, decoded }) => decoded.includes(expected)).length,
    samples: cell.samples,
    ms: Math.round(performance.now() - startedAt),
    answers: answers.slice(0, KEPT_ANSWERS),
  };
}

/** Prompts of one batch have the same number of tokens: padding would have to be hidden from a recurrent state. */
function equalLengthGroups(prompts: readonly PasskeyPrompt[]): PasskeyPrompt[][] {
  const groups: PasskeyPrompt[][] = [];
  const open = new Map<string, PasskeyPrompt[]>();
  for (const prompt of prompts) {
    const shape = `${prompt.promptTokens.length} ${prompt.answerTokens}`;
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
  { engine, tokenizer, segmentTokens }: PasskeySubject,
  cell: PasskeyCell,
  prompts: readonly PasskeyPrompt[],
): { expected: string; decoded: string }[] {
  const [first] = prompts;
  if (!first) return [];
  const lanes = prompts.length;
  const tokens = first.promptTokens.length;
  const tokens_BT = new Int32Array(lanes * tokens);
  prompts.forEach(({ promptTokens }, lane) => tokens_BT.set(promptTokens, lane * tokens));
  const states = engine.createStates(lanes);
  try {
    const forget = (): void => {
      engine.zeroStates(states, "ssm");
      engine.zeroStates(states, "conv");
    };
    const prompt = { lanes, tokens, tokens_BT };
    const logits_BV = cell.carryState
      ? prefillPrompt(engine, states, prompt, MAX_SEGMENT_TOKENS)
      : prefillPrompt(engine, states, prompt, segmentTokens, forget);
    const decoded_BT = greedyDecode(engine, states, logits_BV, first.answerTokens);
    return prompts.map(({ answer, answerTokens }, lane) => ({
      expected: answer,
      decoded: tokenizer.decode(Array.from(decoded_BT.subarray(lane * answerTokens, (lane + 1) * answerTokens))),
    }));
  } finally {
    engine.freeStates(states);
  }
}
