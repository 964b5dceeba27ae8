import type { CureSpec } from "@segue/core";
import { decayRates } from "../decay-rates.js";
import type { LaneStates } from "../engine.js";
import type { MixingEngine, StateRule } from "./state-rule.js";

/** What the tokens between two boundaries did: what they added to the states, and the logarithm of their decay. */
interface Piece {
  readonly added: LaneStates;
  readonly logDecay_BLH: Float64Array;
}

/** The pieces within the window, the oldest first. */
interface Window {
  readonly lanes: number;
  pieces: Piece[];
  /** The states at the last boundary; absent: zero. */
  entering: LaneStates | undefined;
  /** Sum of dt since then. */
  dt_BLH: Float64Array;
}

/**
 * The sliding window by state difference (paper.md 2.3, equation 8): at a boundary a layer's state is
 * h_t - D_r h_{t-r}, D_r the product of the decays since, that is, the part of its last r inputs alone. Decays come from summed dt. The difference is
 * taken piece by piece, which bounds its rounding: of each piece between two boundaries what it added is kept (h_end - D h_start), and the state
 * is the sum of what the last r / everyTokens pieces added, decayed until now. Within a piece outputs see up to everyTokens inputs more.
 */
export function slidingWindow(
  engine: MixingEngine,
  { tokens, everyTokens }: Extract<CureSpec, { kind: "window" }>,
): StateRule<Window> {
  const kept = tokens / everyTokens;
  const a_LH = decayRates(engine);
  const heads = a_LH.length;
  const mix = (into: LaneStates, from: LaneStates, factors: Float64Array | number, accumulate: boolean): void => {
    const factors_BLH =
      typeof factors === "number" ? new Float32Array(into.lanes * heads).fill(factors) : Float32Array.from(factors);
    engine.mixStates(into, from, factors_BLH, accumulate);
  };
  const copyOf = (states: LaneStates): LaneStates => {
    const copy = engine.createStates(states.lanes);
    mix(copy, states, 1, false);
    return copy;
  };

  return {
    everyTokens,
    begin: (lanes) => ({ lanes, pieces: [], entering: undefined, dt_BLH: new Float64Array(lanes * heads) }),
    note: (window, { dt_BLH }) => dt_BLH.forEach((dt, index) => (window.dt_BLH[index]! += dt)),
    apply: (window, states) => {
      const logDecay_BLH = window.dt_BLH.map((dt, index) => dt * a_LH[index % heads]!);
      window.dt_BLH.fill(0);
      const added = copyOf(states);
      if (window.entering)
        mix(
          added,
          window.entering,
          logDecay_BLH.map((log) => -Math.exp(log)),
          true,
        );
      window.pieces.push({ added, logDecay_BLH });
      if (window.pieces.length > kept) {
        engine.freeStates(window.pieces.shift()!.added);
        mix(states, added, 1, false);
        const since_BLH = logDecay_BLH.slice();
        for (const piece of window.pieces.slice(0, -1).reverse()) {
          mix(states, piece.added, since_BLH.map(Math.exp), true);
          piece.logDecay_BLH.forEach((log, index) => (since_BLH[index]! += log));
        }
      }
      if (window.entering) mix(window.entering, states, 1, false);
      else window.entering = copyOf(states);
    },
    fork: (window, lane, copies) => {
      const own = (whole_BLH: Float64Array): Float64Array => repeated(whole_BLH.subarray(lane * heads, (lane + 1) * heads), copies);
      return {
        lanes: copies,
        pieces: window.pieces.map(({ added, logDecay_BLH }) => ({
          added: engine.forkStates(added, lane, copies),
          logDecay_BLH: own(logDecay_BLH),
        })),
        entering: window.entering && engine.forkStates(window.entering, lane, copies),
        dt_BLH: own(window.dt_BLH),
      };
    },
    free: ({ pieces, entering }) => {
      for (const { added } of pieces) engine.freeStates(added);
      if (entering) engine.freeStates(entering);
    },
  };
}

function repeated(values: Float64Array, times: number): Float64Array {
  const all = new Float64Array(values.length * times);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}
