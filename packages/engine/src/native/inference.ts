import type { Device } from "../devices/device.js";
import type { ForwardOptions, LaneStates, PromptBatch, SegmentBatch } from "../engine.js";
import { expectSegment } from "../input-checks.js";
import { takeForward, type ForwardBuffers, type Take } from "./buffers.js";
import type { DeviceModel } from "./device-model.js";
import { floatsOf } from "./lane-states.js";
import { forward, type TokenSegment } from "./mamba2.js";
import { hasSquares, readMoments, takeMoments } from "./moments.js";

interface InferenceBuffers<F> {
  readonly forward: ForwardBuffers<F>;
  /** Where somebody asks for them. */
  readonly moments: F | undefined;
}

/** Forward passes that nothing is learned from, for {@link DeviceEngine}. Layers share their buffers. */
export class ForwardPasses<F, I> {
  readonly #model: DeviceModel<F, I>;
  readonly #device: Device<F, I>;

  constructor(model: DeviceModel<F, I>) {
    this.#model = model;
    this.#device = model.device;
  }

  prefill(batch: PromptBatch, states: LaneStates, options: ForwardOptions = {}): Float32Array {
    const { lanes, tokens } = batch;
    const { vocab, dModel } = this.#model.spec;
    expectSegment(batch, states, vocab);
    const segment = this.#model.uploadSegment(batch);
    const buffers = this.#buffers("prefill", batch, options, (take) => ({
      last_BD: take(lanes * dModel, "activation"),
      logits_BV: take(lanes * vocab),
    }));
    const hidden_RD = this.#infer("prefill", segment, states, buffers, options);
    const lastRows_B = this.#model.tokens_R;
    this.#device.uploadInts(
      Array.from({ length: lanes }, (_, lane) => (lane + 1) * tokens - 1),
      lastRows_B,
    );
    this.#device.gatherRows({ rows: lanes, width: dModel, table_VD: hidden_RD, ids_R: lastRows_B, rows_RD: buffers.last_BD });
    this.#device.matmul({
      m: lanes,
      n: vocab,
      k: dModel,
      a: buffers.last_BD,
      b: this.#model.mamba2.parameters.head_VD,
      transposeB: true,
      out: buffers.logits_BV,
    });
    const logits_BV = new Float32Array(lanes * vocab);
    this.#device.download(buffers.logits_BV, logits_BV);
    this.#readMoments(buffers, options);
    return logits_BV;
  }

  score(batch: SegmentBatch, states: LaneStates, options: ForwardOptions = {}): Float32Array {
    const { lanes, tokens } = batch;
    expectSegment(batch, states, this.#model.spec.vocab);
    const segment = this.#model.uploadSegment(batch);
    const labels_R = this.#model.uploadLabels(batch);
    const buffers = this.#buffers("score", batch, options, () => ({}));
    const hidden_RD = this.#infer("score", segment, states, buffers, options);
    this.#device.headLoss({
      rows: lanes * tokens,
      width: this.#model.spec.dModel,
      vocab: this.#model.spec.vocab,
      hidden_RD,
      table_VD: this.#model.mamba2.parameters.head_VD,
      labels_R,
      losses_R: buffers.forward.losses_R,
    });
    const losses_BT = new Float32Array(lanes * tokens);
    this.#device.download(buffers.forward.losses_R, losses_BT);
    this.#readMoments(buffers, options);
    return losses_BT;
  }

  #buffers<B>(
    key: string,
    { lanes, tokens }: PromptBatch,
    { moments }: ForwardOptions,
    carveRest: (take: Take<F>) => B,
  ): InferenceBuffers<F> & B {
    const { spec, arena } = this.#model;
    return arena.buffers(`${key} ${lanes} ${tokens}${moments ? " moments" : ""}`, (take) => ({
      forward: takeForward(spec, lanes, tokens, false, take),
      ...carveRest(take),
      moments: moments && takeMoments(spec, lanes, take),
    }));
  }

  /** @returns the normed output of the last block */
  #infer(
    key: string,
    segment: TokenSegment<I>,
    states: LaneStates,
    buffers: InferenceBuffers<F>,
    { recurrence, moments }: ForwardOptions,
  ): F {
    const squares = hasSquares(moments);
    const inference = { recurrence, moments: buffers.moments, squares };
    const cured = recurrence ? ` ${recurrence.logRetention} ${recurrence.insertion} ${recurrence.dtScale}` : "";
    const floats = floatsOf<F>(states);
    this.#model.replay(
      `${key}${cured}${moments ? " dt" : ""}${squares ? " squares" : ""}`,
      segment,
      [floats],
      () => void forward(this.#model.mamba2, segment, floats, buffers.forward, inference),
    );
    return buffers.forward.normed_RD;
  }

  #readMoments(buffers: InferenceBuffers<F>, { moments, recurrence }: ForwardOptions): void {
    if (buffers.moments === undefined || !moments) return;
    readMoments(this.#device, this.#model.spec, buffers.moments, recurrence ?? {}, moments);
  }
}
