import { laneStateFloats, parameterLayout, tokensPerStep, type JobSpec } from "@segue/core";
import { FLOAT_BYTES, hostPart, MIB, type MemoryPart } from "./memory-part.js";
import { stepsWaiting, TOKEN_BYTES } from "./segments.js";

/** Node.js with the coordinator's code and heap (`npm run bench:memory`). */
const PROCESS_BYTES = 116 * MIB;
/** Slices in which the weights come while a checkpoint is written, two at a time. */
const SLICE_BYTES = 8 * MIB;

/** What the coordinator holds for one job; the index of documents (16 bytes a document) and a tokenizer come on top. */
export function coordinatorParts(spec: JobSpec, threads: number): MemoryPart[] {
  const { batch, model, checkpoints, train } = spec;
  const stateBytes = batch.shards * batch.lanesPerShard * laneStateFloats(model) * FLOAT_BYTES;
  // A checkpoint on the way goes on reading the states it began with.
  const [sets, which] =
    checkpoints.everySteps > 0 && checkpoints.everySteps < train.steps
      ? [3, "committed, arriving, in a checkpoint"]
      : [2, "committed, arriving"];
  const waiting = stepsWaiting(spec, threads) * tokensPerStep(spec) * TOKEN_BYTES;
  return [
    hostPart("process", "Node.js, code, heap: measured", PROCESS_BYTES),
    hostPart("lane states", `${sets} x lanes x state: ${which}`, sets * stateBytes),
    hostPart(
      "checkpoint",
      "2 slices of at most 8 MiB under way",
      2 * Math.min(SLICE_BYTES, parameterLayout(model).size * FLOAT_BYTES),
    ),
    hostPart("waiting segments", "2 rounds x steps x tokens x 13 bytes", waiting),
  ];
}
