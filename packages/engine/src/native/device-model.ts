import { parameterLayout, type ModelSpec, type ParameterLayout } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { SegmentBatch } from "../engine.js";
import { Arena } from "./arena.js";
import type { Mamba2, TokenSegment } from "./mamba2.js";
import { modelTensors } from "./parameters.js";

/** A model's parameters on a device, and what training and inference share beside them: memory for activations and for tokens. */
export class DeviceModel<F, I> {
  readonly layout: ParameterLayout;
  readonly arena: Arena<F, I>;
  /** Flat, in the order of `layout`. */
  readonly parameters: F;
  readonly mamba2: Mamba2<F, I>;
  #ints: { capacity: number; tokens_R: I; labels_R: I; resets_R: I };

  constructor(
    readonly device: Device<F, I>,
    readonly spec: ModelSpec,
  ) {
    this.layout = parameterLayout(spec);
    this.arena = new Arena(device);
    this.parameters = device.floats(this.layout.size, "mirrored");
    this.mamba2 = { device, model: spec, parameters: modelTensors(device, this.layout, spec.layers, this.parameters) };
    this.#ints = this.#intsFor(0);
  }

  /** The places of the last segment's tokens, for other ids once nobody needs them. */
  get tokens_R(): I {
    return this.#ints.tokens_R;
  }

  /** Work on the segment's tokens and the arena's buffers that is the same whenever key, shape and memory are. */
  replay(key: string, { lanes, tokens, tokens_R, resets_R }: TokenSegment<I>, memory: readonly F[], work: () => void): void {
    if (!this.device.replay) return work();
    const ints = resets_R === undefined ? [tokens_R] : [tokens_R, resets_R];
    const named = [...memory, this.arena.memory, ...ints];
    this.device.replay(`${key} ${lanes} ${tokens} ${this.device.economies}`, named, work);
  }

  uploadSegment({ lanes, tokens, tokens_BT, resets_BT }: Omit<SegmentBatch, "labels_BT">): TokenSegment<I> {
    const rows = lanes * tokens;
    if (this.#ints.capacity < rows) {
      const { tokens_R, labels_R, resets_R } = this.#ints;
      // Nothing is held should there be no memory for more.
      this.#ints = this.#intsFor(0);
      for (const ints of [tokens_R, labels_R, resets_R]) this.device.freeInts?.(ints);
      this.#ints = this.#intsFor(rows);
    }
    this.device.uploadInts(tokens_BT, this.#ints.tokens_R);
    if (!resets_BT) return { lanes, tokens, tokens_R: this.#ints.tokens_R };
    this.device.uploadInts(resets_BT, this.#ints.resets_R);
    return { lanes, tokens, tokens_R: this.#ints.tokens_R, resets_R: this.#ints.resets_R };
  }

  uploadLabels({ labels_BT }: SegmentBatch): I {
    this.device.uploadInts(labels_BT, this.#ints.labels_R);
    return this.#ints.labels_R;
  }

  #intsFor(rows: number): { capacity: number; tokens_R: I; labels_R: I; resets_R: I } {
    const ints = (): I => this.device.ints(rows);
    return { capacity: rows, tokens_R: ints(), labels_R: ints(), resets_R: ints() };
  }
}
