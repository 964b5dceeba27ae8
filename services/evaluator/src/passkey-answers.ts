import type { PasskeyPrompt } from "@segue/core";
import { greedyDecode, prefillPrompt, type LaneStates } from "@segue/engine";
import { SEGMENT_TOKENS } from "./prefix-states.js";
import type { Subject } from "./tasks/task.js";

export interface Answer {
  readonly expected: string;
  readonly decoded: string;
}

/** Prompts of one batch have the same number of tokens: padding would have to be hidden from a recurrent state. */
export function equalLengthGroups(prompts: readonly PasskeyPrompt[], most: number): PasskeyPrompt[][] {
  const groups: PasskeyPrompt[][] = [];
  const open = new Map<string, PasskeyPrompt[]>();
  for (const prompt of prompts) {
    const shape = `${prompt.tokens} ${prompt.sharedTokens} ${prompt.answerTokens}`;
    const group = open.get(shape);
    if (group && group.length < most) group.push(prompt);
    else {
      const fresh = [prompt];
      open.set(shape, fresh);
      groups.push(fresh);
    }
  }
  return groups;
}

/** Answers prompts of one shape side by side; without `carryState` the state is zeroed at the boundaries of the training's segments. */
export function answerGroup(
  subject: Subject,
  prompts: readonly PasskeyPrompt[],
  carryState: boolean,
): { answers: Answer[]; tokens: number } {
  const { engine, tokenizer } = subject;
  const [first] = prompts;
  if (!first) return { answers: [], tokens: 0 };
  const lanes = prompts.length;
  const { states, from } = carryState ? forkedStates(subject, first, lanes) : controlStates(subject, first, lanes);
  try {
    const tokens = first.tokens - from;
    const read = (lane: number, at: number, count: number): Int32Array => prompts[lane]!.read(from + at, count);
    const logits_BV = prefillPrompt(engine, states, { lanes, tokens, read }, SEGMENT_TOKENS);
    const decoded_BT = greedyDecode(engine, states, logits_BV, first.answerTokens);
    const answers = prompts.map(({ answer, answerTokens }, lane) => ({
      expected: answer,
      decoded: tokenizer.decode(untilEnd(decoded_BT.subarray(lane * answerTokens, (lane + 1) * answerTokens), tokenizer.eosId)),
    }));
    return { answers, tokens: lanes * (tokens + first.answerTokens - 1) };
  } finally {
    engine.freeStates(states);
  }
}

/** What comes before the end token. */
function untilEnd(tokens: Int32Array, eosId: number): number[] {
  const end = tokens.indexOf(eosId);
  return Array.from(end < 0 ? tokens : tokens.subarray(0, end));
}

interface Start {
  readonly states: LaneStates;
  /** The prompts' first token that the states have not seen. */
  readonly from: number;
}

/** Every lane begins with the state that the filler before the needle leaves. */
function forkedStates({ engine, prefixes }: Subject, prompt: PasskeyPrompt, lanes: number): Start {
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
function controlStates({ engine, segmentTokens }: Subject, prompt: PasskeyPrompt, lanes: number): Start {
  const from = Math.floor((prompt.tokens - 1) / segmentTokens) * segmentTokens;
  return { states: engine.createStates(lanes), from };
}
