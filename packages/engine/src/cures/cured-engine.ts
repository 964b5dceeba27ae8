import { SegueError, type CureSpec } from "@segue/core";
import type { Engine, Recurrence } from "../engine.js";
import { cureUnsupported } from "../input-checks.js";
import { changedStates, modelOf } from "./changed-states.js";
import { normalisation, type TextReader } from "./normalisation.js";
import { slidingWindow } from "./sliding-window.js";
import type { InferenceEngine, MixingEngine } from "./state-rule.js";

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

function changedRecurrence(engine: Engine, recurrence: Recurrence): InferenceEngine {
  return {
    ...passesOf(mixing(engine)),
    prefill: (batch, states, options) => engine.prefill(batch, states, { ...options, recurrence }),
    score: (batch, states, options) => engine.score(batch, states, { ...options, recurrence }),
  };
}
