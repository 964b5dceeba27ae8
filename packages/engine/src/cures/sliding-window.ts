import type { CureSpec } from "@segue/core";
import { decayRates } from "../decay-rates.js";
import type { LaneStates } from "../engine.js";
import type { MixingEngine, StateRule } from "./state-rule.js";

/** A boundary between two pieces of the text: its number, and the sums of dt from the start of the text to there. */
interface Boundary {
  readonly number: number;
  readonly dt_BLH: Float64Array;
}

/** What the tokens between two boundaries added to the states, as it was at the second of them. */
interface Piece {
  readonly added: LaneStates;
  readonly end: Boundary;
}

interface Window {
  readonly lanes: number;
  /** The pieces within the window, the oldest first. */
  readonly pieces: Piece[];
  /** The last boundary, and the states there. */
  last: Boundary;
  entering: LaneStates;
  /** Sums of dt up to now. */
  readonly dt_BLH: Float64Array;
  /** The last piece in which a document started: the number of the boundary at its end; 0: none. */
  readonly resetIn_B: Int32Array;
}

/**
 * The sliding window by state difference (paper.md 2.3, equation 8): at every boundary a layer's state becomes h_t - D_r h_{t-r}, the part of its last
 * r inputs alone, D_r the product of the decays since token t - r, from the sum of dt. What is subtracted is what the layer's inputs really added:
 * kept is, for each piece within the window, h_end - D h_start, and the one that leaves is subtracted as it has decayed. Once in a window the
 * state is summed up from the pieces instead, so that no rounding outlives two windows. See docs/design/cures.md.
 */
export function slidingWindow(
  engine: MixingEngine,
  { tokens, everyTokens }: Extract<CureSpec, { kind: "window" }>,
): StateRule<Window> {
  const most = tokens / everyTokens;
  const a_LH = decayRates(engine);
  const heads = a_LH.length;

  const ones = (lanes: number): Float64Array => new Float64Array(lanes * heads).fill(1);
  const mix = (into: LaneStates, from: LaneStates, factors_BLH: Float64Array, accumulate: boolean): void =>
    engine.mixStates(into, from, factors_BLH, accumulate);
  const copy = (from: LaneStates, into: LaneStates): void => mix(into, from, ones(from.lanes), false);

  /** Products of all decays from a boundary until now, times `sign`. */
  const decaySince = ({ number, dt_BLH }: Boundary, { dt_BLH: until_BLH, resetIn_B }: Window, sign: 1 | -1): Float64Array =>
    dt_BLH.map((since, index) =>
      resetIn_B[Math.floor(index / heads)]! > number ? 0 : sign * Math.exp(a_LH[index % heads]! * (until_BLH[index]! - since)),
    );

  /** The states as the sum of the window's pieces, the last of which ends now. */
  const sumUp = (window: Window, states: LaneStates): void =>
    window.pieces.forEach(({ added, end }, index) => mix(states, added, decaySince(end, window, 1), index > 0));

  return {
    everyTokens,
    begin: (lanes) => ({
      lanes,
      pieces: [],
      last: { number: 0, dt_BLH: new Float64Array(lanes * heads) },
      entering: engine.createStates(lanes),
      dt_BLH: new Float64Array(lanes * heads),
      resetIn_B: new Int32Array(lanes),
    }),
    note: ({ dt_BLH, resetIn_B, last }, { tokens: read, resets_BT }, sums) => {
      sums.dt_BLH.forEach((dt, index) => (dt_BLH[index]! += dt));
      resets_BT?.forEach((reset, row) => {
        if (reset) resetIn_B[Math.floor(row / read)] = last.number + 1;
      });
    },
    apply: (window, states) => {
      const { pieces, entering: added } = window;
      mix(added, added, decaySince(window.last, window, -1), false);
      mix(added, states, ones(window.lanes), true);
      const end = { number: window.last.number + 1, dt_BLH: window.dt_BLH.slice() };
      pieces.push({ added, end });
      window.last = end;
      const leaving = pieces.length > most ? pieces.shift() : undefined;
      if (leaving && end.number % most === 0) sumUp(window, states);
      else if (leaving) mix(states, leaving.added, decaySince(leaving.end, window, -1), true);
      window.entering = leaving?.added ?? engine.createStates(window.lanes);
      copy(states, window.entering);
    },
    fork: ({ pieces, last, entering, dt_BLH, resetIn_B }, lane, copies) => {
      const own = (whole_BLH: Float64Array): Float64Array => {
        const own_LH = whole_BLH.subarray(lane * heads, (lane + 1) * heads);
        return Float64Array.from({ length: copies * heads }, (_, index) => own_LH[index % heads]!);
      };
      const boundary = ({ number, dt_BLH: until_BLH }: Boundary): Boundary => ({ number, dt_BLH: own(until_BLH) });
      return {
        lanes: copies,
        pieces: pieces.map(({ added, end }) => ({ added: engine.forkStates(added, lane, copies), end: boundary(end) })),
        last: boundary(last),
        entering: engine.forkStates(entering, lane, copies),
        dt_BLH: own(dt_BLH),
        resetIn_B: new Int32Array(copies).fill(resetIn_B[lane]!),
      };
    },
    free: ({ pieces, entering }) => {
      for (const { added } of pieces) engine.freeStates(added);
      engine.freeStates(entering);
    },
  };
}
