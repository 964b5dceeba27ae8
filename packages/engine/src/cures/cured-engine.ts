import { SegueError, type CureSpec } from "@segue/core";
import type { Engine, ForwardOptions, LaneStates, LayerMoments, PromptBatch, SegmentBatch } from "../engine.js";
import { cureUnsupported, expectLane } from "../input-checks.js";
import { newLayerMoments } from "../native/moments.js";
import { segmentOf } from "../segments.js";
import { normalisation, type TextReader } from "./normalisation.js";
import { slidingWindow } from "./sliding-window.js";
import type { InferenceEngine, MixingEngine, StateRule } from "./state-rule.js";

/**
 * An engine whose recurrence is changed by a cure in inference (paper.md section 2); `none` is the engine itself. States
 * are changed at multiples of a number of tokens from their start, however the text is cut into calls.
 * @param reference the text that sets the thresholds of `normalised`, which must be given then
 * @throws SegueError CURE_UNSUPPORTED for engines that know no cures
 */
export function curedEngine(engine: Engine, cure: CureSpec, reference?: TextReader): InferenceEngine {
  switch (cure.kind) {
    case "none":
      return engine;
    case "reduced":
      return changedRecurrence(engine, { logRetention: Math.log(cure.retention), insertion: cure.insertion, dtScale: 1 });
    case "longMamba":
      return changedRecurrence(engine, { logRetention: 0, insertion: 1, dtScale: cure.dtScale });
    case "normalised":
      if (!reference)
        throw new SegueError("ENGINE_INPUT_INVALID", "state normalisation takes its thresholds from a reference text");
      return changedStates(mixing(engine), normalisation(mixing(engine), cure, reference));
    case "window":
      if (cure.tokens % cure.everyTokens !== 0) {
        throw new SegueError("ENGINE_INPUT_INVALID", `a window of ${cure.tokens} tokens is no multiple of ${cure.everyTokens}`);
      }
      return changedStates(mixing(engine), slidingWindow(mixing(engine), cure));
  }
}

function mixing(engine: Engine): MixingEngine {
  if (!engine.mixStates || !engine.headNorms) throw cureUnsupported(engine.description.name);
  return engine as MixingEngine;
}

function modelOf(engine: Engine): Pick<InferenceEngine, "description" | "model" | "layout" | "readParameters"> {
  return {
    description: engine.description,
    model: engine.model,
    layout: engine.layout,
    readParameters: (into, offset) => engine.readParameters(into, offset),
  };
}

function passesOf(engine: MixingEngine): Omit<InferenceEngine, "prefill" | "score"> {
  return {
    ...modelOf(engine),
    createStates: (lanes) => engine.createStates(lanes),
    freeStates: (states) => engine.freeStates(states),
    forkStates: (states, lane, copies) => engine.forkStates(states, lane, copies),
    zeroStates: (states, part) => engine.zeroStates(states, part),
    readStates: (states, into) => engine.readStates(states, into),
    headNorms: (states) => engine.headNorms(states),
  };
}

function changedRecurrence(engine: Engine, recurrence: NonNullable<ForwardOptions["recurrence"]>): InferenceEngine {
  return {
    ...passesOf(mixing(engine)),
    prefill: (batch, states, options) => engine.prefill(batch, states, { ...options, recurrence }),
    score: (batch, states, options) => engine.score(batch, states, { ...options, recurrence }),
  };
}

/** Lanes that a rule watches over. */
interface CuredStates<K> extends LaneStates {
  readonly inner: LaneStates;
  /** Tokens since the states were zero. */
  position: number;
  kept: K;
}

function changedStates<K>(engine: MixingEngine, rule: StateRule<K>): InferenceEngine {
  const { model } = engine;
  const of = (states: LaneStates): CuredStates<K> => states as CuredStates<K>;
  const moments = new Map<number, LayerMoments>();
  const momentsOf = (lanes: number): LayerMoments => {
    const known = moments.get(lanes) ?? newLayerMoments(model, lanes);
    moments.set(lanes, known);
    return known;
  };

  /** Passes that end where the rule is to be applied. */
  function inPieces<B extends PromptBatch>(
    batch: B,
    states: CuredStates<K>,
    cut: (start: number, tokens: number) => B,
    pass: (piece: B, options: ForwardOptions, start: number) => void,
    wanted: LayerMoments | undefined,
  ): void {
    if (batch.resets_BT) throw new SegueError("ENGINE_INPUT_INVALID", "a cure of states cannot follow resets inside a segment");
    const sums = rule.note || wanted ? momentsOf(batch.lanes) : undefined;
    if (wanted) for (const sum of arraysOf(wanted)) sum.fill(0);
    for (let start = 0; start < batch.tokens;) {
      const tokens = Math.min(batch.tokens - start, rule.everyTokens - (states.position % rule.everyTokens));
      pass(tokens === batch.tokens ? batch : cut(start, tokens), { moments: sums }, start);
      if (sums) rule.note?.(states.kept, sums);
      if (sums && wanted) addMoments(wanted, sums);
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

function arraysOf({ dt_BLH, x2_BLH, b2_BLG, c2_BLG }: LayerMoments): Float32Array[] {
  return [dt_BLH, x2_BLH, b2_BLG, c2_BLG];
}

function addMoments(into: LayerMoments, from: LayerMoments): void {
  const added = arraysOf(from);
  arraysOf(into).forEach((sum, which) => added[which]!.forEach((value, index) => (sum[index]! += value)));
}
