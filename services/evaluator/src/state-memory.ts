import { laneStateFloats, type CureSpec, type ModelSpec } from "@segue/core";

/** Prompts fed at once: enough to keep the device busy, few enough for one state each. */
export const MAX_LANES = 16;
const MAX_LANE_BYTES = 2 * 2 ** 30;

/** What the states of one lane take, those that a cure keeps of it included: a window has one for each of its pieces. */
export function laneBytes(model: ModelSpec, cure: CureSpec): number {
  const states = cure.kind === "window" ? 2 + cure.tokens / cure.everyTokens : 1;
  return 4 * laneStateFloats(model) * states;
}

/** How many lanes there may be at once. */
export function mostLanes(model: ModelSpec, cure: CureSpec): number {
  return Math.max(1, Math.min(MAX_LANES, Math.floor(MAX_LANE_BYTES / laneBytes(model, cure))));
}
