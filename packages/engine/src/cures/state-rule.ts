import type { Engine, LaneStates, LayerMoments } from "../engine.js";

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
  /** What a pass did since; absent: nobody wants to know. */
  note?(kept: K, moments: LayerMoments): void;
  /** After another `everyTokens` tokens. */
  apply(kept: K, states: LaneStates): void;
  fork(kept: K, lane: number, copies: number): K;
  free(kept: K): void;
}
