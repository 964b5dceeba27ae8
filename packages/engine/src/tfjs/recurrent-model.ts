import type { Tensor, Tensor2D } from "@tensorflow/tfjs";

/** Named tensors, in the shapes of the parameter layout. */
export type Parameters = ReadonlyMap<string, Tensor>;

/** One tensor of the recurrent state: [lanes, ...shape]. */
export interface StateSlot {
  readonly part: "ssm" | "conv";
  readonly shape: readonly number[];
}

export interface SegmentInput {
  readonly lanes: number;
  readonly tokens: number;
  readonly tokens_BT: Int32Array;
  /** 1: the state is zero before this token. */
  readonly resets_BT?: Uint8Array | undefined;
}

/**
 * A recurrent language model as TensorFlow.js sees it: differentiable functions of parameters, tokens and state. The engine takes
 * care of everything else. A lane's state is its slots one after the other, each row-major.
 */
export interface RecurrentModel {
  readonly slots: readonly StateSlot[];
  /** @returns hidden rows, [lanes * tokens, width], and the states after the segment, one per slot */
  forward(parameters: Parameters, input: SegmentInput, states: readonly Tensor[]): { hidden_RD: Tensor2D; states: Tensor[] };
  /** Logits of hidden rows, [rows, vocabulary]. */
  logits(parameters: Parameters, hidden_RD: Tensor2D): Tensor2D;
}
