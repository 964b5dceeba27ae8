import { SegueError } from "@segue/core";
import type { ForwardOptions, LaneStates, SegmentBatch } from "./engine.js";

/** @throws SegueError ENGINE_INPUT_INVALID */
export function expectLength(what: string, actual: number, expected: number): void {
  if (actual === expected) return;
  throw new SegueError("ENGINE_INPUT_INVALID", `${what}: expected ${expected}, got ${actual}`);
}

/**
 * All `size` floats of a vector, or with an `offset` a part of them.
 * @returns the part's first float
 * @throws SegueError ENGINE_INPUT_INVALID
 */
export function expectPart(what: string, actual: number, offset: number | undefined, size: number): number {
  if (offset === undefined) {
    expectLength(what, actual, size);
    return 0;
  }
  if (Number.isInteger(offset) && offset >= 0 && offset + actual <= size) return offset;
  throw new SegueError("ENGINE_INPUT_INVALID", `${what}: ${actual} from number ${offset} on are not among the ${size} there are`);
}

/**
 * Ids outside the vocabulary would read past the tables of a kernel.
 * @throws SegueError ENGINE_INPUT_INVALID
 */
export function expectTokens(what: string, ids: Int32Array, vocab: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocab);
  if (wrong === undefined) return;
  throw new SegueError("ENGINE_INPUT_INVALID", `${what} ${wrong} is outside the vocabulary of ${vocab}`);
}

/** @throws SegueError ENGINE_INPUT_INVALID */
export function expectLane(lane: number, { lanes }: LaneStates): void {
  if (Number.isInteger(lane) && lane >= 0 && lane < lanes) return;
  throw new SegueError("ENGINE_INPUT_INVALID", `lane ${lane} is not among the ${lanes} of the states`);
}

/** Sizes and ids of a segment; labels and weights where it has them. @throws SegueError ENGINE_INPUT_INVALID */
export function expectSegment(
  batch: Omit<SegmentBatch, "labels_BT"> & Partial<Pick<SegmentBatch, "labels_BT">>,
  states: LaneStates,
  vocab: number,
): void {
  const rows = batch.lanes * batch.tokens;
  expectLength("lanes of the states", states.lanes, batch.lanes);
  expectLength("tokens", batch.tokens_BT.length, rows);
  expectTokens("token", batch.tokens_BT, vocab);
  if (batch.labels_BT) {
    expectLength("labels", batch.labels_BT.length, rows);
    expectTokens("label", batch.labels_BT, vocab);
  }
  if (batch.weights_BT) expectLength("weights", batch.weights_BT.length, rows);
  if (batch.resets_BT) expectLength("resets", batch.resets_BT.length, rows);
}

/** @throws SegueError CURE_UNSUPPORTED when a pass is asked for what an engine cannot do */
export function expectPlain(options: ForwardOptions | undefined): void {
  if (options?.recurrence || options?.moments) throw cureUnsupported("tfjs");
}

export function cureUnsupported(engine: string): SegueError {
  return new SegueError("CURE_UNSUPPORTED", `The engine ${engine} knows no cures and no statistics of a pass; take cpu or cuda.`, {
    status: "UNIMPLEMENTED",
  });
}
