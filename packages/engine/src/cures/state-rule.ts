import type { DtSums, Engine, LaneStates, PromptBatch } from "../engine.js";

/** What inference needs of an engine. */
export type InferenceEngine = Pick<
  Engine,
  | "description"
  | "model"
  | "layout"
  | "readParameters"
  | "createStates"
  | "freeStates"
  | "forkStates"
  | "zeroStates"
  | "readStates"
  | "headNorms"
  | "prefill"
  | "score"
>;

/** An engine that can change states. */
export type MixingEngine = Engine & Required<Pick<Engine, "mixStates" | "headNorms">>;

/** A cure that changes states every so many tokens. K is what it keeps of lanes beside their states. */
export interface StateRule<K> {
  readonly everyTokens: number;
  /** For lanes whose states are zero. */
  begin(lanes: number): K;
  /** What a pass over part of the tokens up to the next boundary did; absent: nobody wants to know. */
  note?(kept: K, pass: Pick<PromptBatch, "tokens" | "resets_BT">, sums: DtSums): void;
  /** After another `everyTokens` tokens. */
  apply(kept: K, states: LaneStates): void;
  fork(kept: K, lane: number, copies: number): K;
  free(kept: K): void;
}
