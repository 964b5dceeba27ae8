import type { HeadStatistics } from "./head-statistics.js";
import type { Histogram } from "./histogram.js";
import type { ValueStatistics } from "./value-statistics.js";

/** A lane's state at one place of a text, and what entered it since the place before. */
export interface StateSample {
  /** Tokens read before. */
  readonly tokens: number;
  /** Of the SSM state, layer by layer. */
  readonly heads: readonly HeadStatistics[];
  /** Of the convolution taps, by layer. */
  readonly conv: readonly ValueStatistics[];
  /** In the order of `heads`; absent when the engine cannot tell. */
  readonly inputs?: readonly HeadInputs[] | undefined;
  /** In the order of `heads`; at chosen places only. */
  readonly histograms?: readonly Histogram[] | undefined;
}

/** What entered a head's recurrence (paper.md section 1.3, M4 and M5): over the tokens since the sample before. */
export interface HeadInputs {
  /** Mean time step. */
  readonly dt: number;
  /** Root mean squares of the Euclidean norms of the head's x, and of B and C of its group. */
  readonly x: number;
  readonly b: number;
  readonly c: number;
  /** The product of the decays of all tokens so far: what is left of what was in the state before them, and nearly so of the first. */
  readonly retention: number;
}
