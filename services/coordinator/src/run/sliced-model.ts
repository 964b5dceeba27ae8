import { optimizerSlice } from "@segue/core";
import type { CheckpointInput } from "../checkpoints/write-checkpoint.js";
import { modelRef, momentsRef } from "./lane-states.js";

const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

/** Bytes of a tensor, from the first of the holders that delivers; the list gets shorter. */
type Pull = (ref: string, holders: string[], offset: number, length: number) => Promise<Uint8Array>;

/**
 * The snapshot f32 [3, P] of a step under sync.optimizer sharded, read from the members' slices: weights from any holder, moments from the
 * holders of their slice.
 */
export function slicedModel(
  jobId: string,
  step: number,
  parameters: number,
  holders: string[],
  slices: readonly (readonly string[])[],
  pull: Pull,
): CheckpointInput["readModel"] {
  const parts = slices.map((held, index) => ({ ...optimizerSlice(index, slices.length, parameters), holders: [...held] }));
  const vectorBytes = parameters * FLOAT_BYTES;
  return async (offset, length) => {
    const bytes = new Uint8Array(length);
    for (let filled = 0; filled < length;) {
      const at = offset + filled;
      const vector = Math.floor(at / vectorBytes);
      const inVector = at - vector * vectorBytes;
      if (vector === 0) {
        const most = Math.min(length - filled, vectorBytes - inVector);
        bytes.set(await pull(modelRef(jobId, step), holders, at, most), filled);
        filled += most;
        continue;
      }
      const part = parts.find(({ begin, end }) => begin * FLOAT_BYTES <= inVector && inVector < end * FLOAT_BYTES);
      if (!part) throw new RangeError(`byte ${at} is in no slice`);
      const most = Math.min(length - filled, part.end * FLOAT_BYTES - inVector);
      const inPart = ((vector - 1) * (part.end - part.begin) - part.begin) * FLOAT_BYTES + inVector;
      bytes.set(await pull(momentsRef(jobId, step, part), part.holders, inPart, most), filled);
      filled += most;
    }
    return bytes;
  };
}
