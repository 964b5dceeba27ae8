import { laneStateFloats, modelWidths } from "@segue/core";
import type { Device, LaneParts } from "../devices/device.js";
import type { LaneStates } from "../engine.js";
import { expectLane, expectLength } from "../input-checks.js";
import type { DeviceModel } from "./device-model.js";
import { zeroStatePart } from "./tbptt.js";

interface DeviceStates<F> extends LaneStates {
  readonly floats: F;
}

/** Where states of a {@link StateStore} lie. */
export function floatsOf<F>(states: LaneStates): F {
  return (states as DeviceStates<F>).floats;
}

/** Mean, unbiased variance, root mean square and largest magnitude of each head's state. */
export const STATE_STATISTICS = ["mean", "variance", "rms", "largest"] as const;

/** The recurrent states of lanes on a device, for {@link DeviceEngine}. */
export class StateStore<F, I> {
  readonly #model: DeviceModel<F, I>;
  readonly #device: Device<F, I>;

  constructor(model: DeviceModel<F, I>) {
    this.#model = model;
    this.#device = model.device;
  }

  create(lanes: number): LaneStates {
    const states: DeviceStates<F> = { lanes, floats: this.#device.floats(lanes * laneStateFloats(this.#model.spec)) };
    return states;
  }

  free(states: LaneStates): void {
    this.#device.free?.(floatsOf<F>(states));
  }

  fork(states: LaneStates, lane: number, copies: number): LaneStates {
    expectLane(lane, states);
    const floats = laneStateFloats(this.#model.spec);
    const part = (of: F, index: number): F => this.#device.slice(of, index * floats, floats);
    const forked = this.create(copies);
    for (let copy = 0; copy < copies; copy++) this.#device.copy(part(floatsOf<F>(states), lane), part(floatsOf<F>(forked), copy));
    return forked;
  }

  zero(states: LaneStates, part: "ssm" | "conv"): void {
    zeroStatePart(this.#device, this.#model.spec, floatsOf<F>(states), states.lanes, part);
  }

  read(states: LaneStates, into: Float32Array): void {
    this.#device.download(floatsOf<F>(states), into);
  }

  write(states: LaneStates, from: Float32Array): void {
    expectLength("states", from.length, states.lanes * laneStateFloats(this.#model.spec));
    this.#device.upload(from, floatsOf<F>(states));
  }

  /** The SSM states of lanes, for operations on heads: those of all layers, one after the other. */
  #heads(states: LaneStates): { lanes: number; heads: number; size: number; state: LaneParts<F> } {
    const { layers, headDim, dState } = this.#model.spec;
    return {
      lanes: states.lanes,
      heads: layers * modelWidths(this.#model.spec).heads,
      size: headDim * dState,
      state: { data: floatsOf<F>(states), stride: laneStateFloats(this.#model.spec) },
    };
  }

  mix(into: LaneStates, from: LaneStates, factors_BLH: Float32Array | Float64Array, accumulate: boolean): void {
    const of = this.#heads(into);
    const { lanes, heads } = of;
    expectLength("lanes of the states", from.lanes, lanes);
    expectLength("factors", factors_BLH.length, lanes * heads);
    const factors_BH = this.#model.arena.buffers(`mix ${lanes}`, (take) => take(lanes * heads));
    this.#device.upload(this.#device.isWide ? factors_BLH : Float32Array.from(factors_BLH), factors_BH);
    this.#device.mixHeads({ ...of, factors_BH, from: this.#heads(from).state, accumulate });
  }

  headNorms(states: LaneStates): Float32Array {
    const statistics = this.statistics(states);
    const rms = STATE_STATISTICS.indexOf("rms");
    const rootSize = Math.sqrt(this.#model.spec.headDim * this.#model.spec.dState);
    return Float32Array.from(
      { length: statistics.length / STATE_STATISTICS.length },
      (_, head) => statistics[head * STATE_STATISTICS.length + rms]! * rootSize,
    );
  }

  /** [lanes, layers, heads, {@link STATE_STATISTICS}] of the SSM states. */
  statistics(states: LaneStates): Float32Array {
    const of = this.#heads(states);
    const { lanes, heads } = of;
    const out = this.#device.floats(lanes * heads * STATE_STATISTICS.length);
    this.#device.stateStatistics({ ...of, out });
    const statistics = new Float32Array(lanes * heads * STATE_STATISTICS.length);
    this.#device.download(out, statistics);
    this.#device.free?.(out);
    return statistics;
  }
}
