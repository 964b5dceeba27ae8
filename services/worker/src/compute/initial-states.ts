import { drawInitialState, laneStateFloats, type InitialStateRule } from "@segue/core";
import type { Engine, TrainingPart } from "@segue/engine";

/**
 * Gives the lanes whose state is dropped before the part's first token an initial state of their own instead of zero. States travel only
 * when there is such a lane.
 * @param firstLane the number of the part's first lane among all lanes of the job
 * @returns the part without those resets
 */
export function withInitialStates(engine: Engine, part: TrainingPart, rule: InitialStateRule, firstLane: number): TrainingPart {
  const { batch, states } = part;
  const { lanes, tokens, resets_BT } = batch;
  const dropped = Array.from({ length: lanes }, (_, lane) => lane).filter((lane) => resets_BT?.[lane * tokens] === 1);
  if (!resets_BT || dropped.length === 0) return part;
  const laneFloats = laneStateFloats(engine.model);
  const values = new Float32Array(lanes * laneFloats);
  engine.readStates(states, values);
  const others = resets_BT.slice();
  for (const lane of dropped) {
    drawInitialState(engine.model, rule, firstLane + lane, values.subarray(lane * laneFloats, (lane + 1) * laneFloats));
    others[lane * tokens] = 0;
  }
  engine.writeStates(states, values);
  return { states, batch: { ...batch, resets_BT: others.includes(1) ? others : undefined } };
}
