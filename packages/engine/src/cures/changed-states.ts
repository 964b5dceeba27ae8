import type { DtSums, Engine, ForwardOptions, LaneStates, LayerMoments, PromptBatch, SegmentBatch } from "../engine.js";
import { expectLane } from "../input-checks.js";
import { hasSquares, newLayerMoments } from "../native/moments.js";
import { segmentOf } from "../segments.js";
import type { InferenceEngine, MixingEngine, StateRule } from "./state-rule.js";

export function modelOf(engine: Engine): Pick<InferenceEngine, "description" | "model" | "layout" | "readParameters"> {
  return {
    description: engine.description,
    model: engine.model,
    layout: engine.layout,
    readParameters: (into, offset) => engine.readParameters(into, offset),
  };
}

/** Lanes that a rule watches over. */
interface CuredStates<K> extends LaneStates {
  readonly inner: LaneStates;
  /** Tokens since the states were zero. */
  position: number;
  kept: K;
}

/** An engine whose states a rule changes at multiples of its `everyTokens` tokens. Passes over more are cut there. */
export function changedStates<K>(engine: MixingEngine, rule: StateRule<K>): InferenceEngine {
  const { model } = engine;
  const of = (states: LaneStates): CuredStates<K> => states as CuredStates<K>;

  function inPieces<B extends PromptBatch>(
    batch: B,
    states: CuredStates<K>,
    cut: (start: number, tokens: number) => B,
    pass: (piece: B, options: ForwardOptions, start: number) => void,
    wanted: DtSums | LayerMoments | undefined,
  ): void {
    const moments = rule.note || wanted ? momentsLike(wanted, newLayerMoments(model, batch.lanes)) : undefined;
    if (wanted) for (const sums of arraysOf(wanted)) sums.fill(0);
    for (let start = 0; start < batch.tokens;) {
      const tokens = Math.min(batch.tokens - start, rule.everyTokens - (states.position % rule.everyTokens));
      const piece = tokens === batch.tokens ? batch : cut(start, tokens);
      pass(piece, { moments }, start);
      if (moments) rule.note?.(states.kept, piece, moments);
      if (moments && wanted) addMoments(wanted, moments);
      states.position += tokens;
      start += tokens;
      if (states.position % rule.everyTokens === 0) rule.apply(states.kept, states.inner);
    }
  }

  return {
    ...modelOf(engine),
    createStates(lanes) {
      const created: CuredStates<K> = { lanes, inner: engine.createStates(lanes), position: 0, kept: rule.begin(lanes) };
      return created;
    },
    freeStates(states) {
      engine.freeStates(of(states).inner);
      rule.free(of(states).kept);
    },
    forkStates(states, lane, copies) {
      expectLane(lane, states);
      const { inner, position, kept } = of(states);
      const forked: CuredStates<K> = {
        lanes: copies,
        inner: engine.forkStates(inner, lane, copies),
        position,
        kept: rule.fork(kept, lane, copies),
      };
      return forked;
    },
    zeroStates(states, part) {
      const cured = of(states);
      engine.zeroStates(cured.inner, part);
      if (part === "conv") return;
      rule.free(cured.kept);
      cured.kept = rule.begin(cured.lanes);
      cured.position = 0;
    },
    readStates: (states, into) => engine.readStates(of(states).inner, into),
    headNorms: (states) => engine.headNorms(of(states).inner),
    prefill(batch, states, options) {
      const cured = of(states);
      let logits_BV: Float32Array | undefined;
      const cut = (start: number, tokens: number): PromptBatch =>
        segmentOf({ ...batch, labels_BT: batch.tokens_BT }, start, tokens);
      const pass = (piece: PromptBatch, own: ForwardOptions): void => {
        logits_BV = engine.prefill(piece, cured.inner, own);
      };
      inPieces(batch, cured, cut, pass, options?.moments);
      return logits_BV!;
    },
    score(batch, states, options) {
      const cured = of(states);
      const losses_BT = new Float32Array(batch.lanes * batch.tokens);
      const cut = (start: number, tokens: number): SegmentBatch => segmentOf(batch, start, tokens);
      const pass = (piece: SegmentBatch, own: ForwardOptions, start: number): void => {
        const part_BT = engine.score(piece, cured.inner, own);
        for (let lane = 0; lane < batch.lanes; lane++) {
          losses_BT.set(part_BT.subarray(lane * piece.tokens, (lane + 1) * piece.tokens), lane * batch.tokens + start);
        }
      };
      inPieces(batch, cured, cut, pass, options?.moments);
      return losses_BT;
    },
  };
}

/** Squares only where somebody asks for them: they cost time. */
function momentsLike(wanted: DtSums | LayerMoments | undefined, all: LayerMoments): DtSums | LayerMoments {
  return hasSquares(wanted) ? all : { dt_BLH: all.dt_BLH };
}

function arraysOf(moments: DtSums | LayerMoments): Float64Array[] {
  if (!hasSquares(moments)) return [moments.dt_BLH];
  return [moments.dt_BLH, moments.x2_BLH, moments.b2_BLG, moments.c2_BLG];
}

function addMoments(into: DtSums | LayerMoments, from: DtSums | LayerMoments): void {
  const added = arraysOf(from);
  arraysOf(into).forEach((sums, which) => added[which]!.forEach((value, index) => (sums[index]! += value)));
}
