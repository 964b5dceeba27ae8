import { DEFAULT_SPEC } from "./defaults.js";
import type { JobSpec } from "./job-spec.js";
import type { Refuse } from "./refuse.js";
import { tbpttStages } from "./tbptt-stages.js";

/** The rules that span the settings of `tbptt`. */
export function checkTbptt({ tbptt, batch }: JobSpec, refuse: Refuse): void {
  const { sequence, resetAtDocumentEnd, initialState, stateDropProbability, curriculum } = tbptt;
  const isUnrelated = sequence === "unrelated";
  refuse(
    isUnrelated && resetAtDocumentEnd,
    "tbptt.resetAtDocumentEnd",
    "must be false with tbptt.sequence unrelated, which passes the state on from document to document; remove it",
    "tbptt.sequence",
  );
  refuse(
    isUnrelated && batch.shards * batch.lanesPerShard < 2,
    "tbptt.sequence",
    "unrelated needs at least two lanes, since the lanes exchange their documents; raise batch.lanesPerShard",
    "batch.shards",
    "batch.lanesPerShard",
  );
  curriculum.forEach(({ fromStep }, index) => {
    const before = curriculum[index - 1]?.fromStep ?? 0;
    refuse(
      fromStep <= before,
      `tbptt.curriculum[${index}].fromStep`,
      `must be above that of the stage before, ${before}, but is ${fromStep}`,
    );
  });
  if (initialState === "zero") return;
  refuse(
    !tbptt.carrySsm,
    "tbptt.initialState",
    `${initialState} needs tbptt.carrySsm: without it every segment starts from zero; to start every segment from noise give tbptt.segmentsPerChain 1`,
    "tbptt.carrySsm",
  );
  // An engine takes states where a step begins; inside it can only zero them.
  tbpttStages(tbptt).forEach(({ segmentsPerStep, segmentsPerChain }, index, stages) => {
    const before = stages[index - 1];
    if (before?.segmentsPerStep === segmentsPerStep && before.segmentsPerChain === segmentsPerChain) return;
    const section = index === 0 ? "tbptt" : `tbptt.curriculum[${index - 1}]`;
    refuse(
      segmentsPerChain % segmentsPerStep !== 0,
      `${section}.segmentsPerChain`,
      `must be a multiple of segmentsPerStep, ${segmentsPerStep}, with tbptt.initialState ${initialState}, which can be given only where a step begins, but is ${segmentsPerChain}`,
      `${section}.segmentsPerStep`,
      "tbptt.initialState",
    );
    refuse(
      segmentsPerStep > 1 && stateDropProbability > 0,
      `${section}.segmentsPerStep`,
      `must be 1 with tbptt.stateDropProbability and tbptt.initialState ${initialState}, which can be given only where a step begins, but is ${segmentsPerStep}`,
      "tbptt.stateDropProbability",
      "tbptt.initialState",
    );
  });
}

/** What is legal but has no effect, in sentences. */
export function tbpttWarnings({ model, data, tbptt, train }: JobSpec): string[] {
  const warnings: string[] = [];
  const warn = (condition: boolean, sentence: string): void => {
    if (condition) warnings.push(sentence);
  };
  const stages = tbpttStages(tbptt);
  const noCarry = !tbptt.carrySsm && !tbptt.carryConv;
  const startsFromZero = "with carrySsm and carryConv off every segment starts from zero.";
  warn(
    noCarry && tbptt.segmentsPerChain !== DEFAULT_SPEC.tbptt.segmentsPerChain,
    `tbptt.segmentsPerChain has no effect: ${startsFromZero}`,
  );
  warn(noCarry && tbptt.stateDropProbability > 0, `tbptt.stateDropProbability has no effect: ${startsFromZero}`);
  warn(noCarry && tbptt.sequence === "unrelated", `tbptt.sequence unrelated passes nothing on: ${startsFromZero}`);
  const full = tbptt.gradient === "full";
  const isSingle = stages.every(({ segmentsPerStep }) => segmentsPerStep === 1);
  warn(
    full && isSingle,
    "tbptt.gradient full has no effect on steps of one segment: set tbptt.segmentsPerStep to the segments it should flow through.",
  );
  const isUnchained = stages.every(({ segmentsPerChain }) => segmentsPerChain === 1);
  warn(
    full && !isSingle && (noCarry || isUnchained),
    `tbptt.gradient full has no effect: with ${noCarry ? "carrySsm and carryConv off" : "segmentsPerChain 1"} every segment starts from zero.`,
  );
  warn(
    stages.every(({ segmentTokens }) => model.chunk > segmentTokens) && model.chunk !== DEFAULT_SPEC.model.chunk,
    "model.chunk is larger than tbptt.segmentTokens: a segment is one chunk.",
  );
  warn(
    tbptt.initialState !== "noise" && tbptt.initialStateStd !== DEFAULT_SPEC.tbptt.initialStateStd,
    `tbptt.initialStateStd has no effect with tbptt.initialState ${tbptt.initialState}.`,
  );
  const late = tbptt.curriculum.findIndex(({ fromStep }) => fromStep >= train.steps);
  warn(late >= 0, `tbptt.curriculum[${late}] is never reached: the job has ${train.steps} steps.`);
  const chainTokens = stages.map(({ segmentsPerChain, segmentTokens }) => segmentsPerChain * segmentTokens);
  const shortest = Math.min(...chainTokens.filter((tokens) => tokens > 0));
  warn(
    !noCarry && data.passkey !== undefined && data.passkey.documentTokens > shortest,
    `data.passkey documents are longer than a chain (${shortest} tokens): the state is zeroed inside them. Set tbptt.segmentsPerChain to 0 to keep it.`,
  );
  return warnings;
}
