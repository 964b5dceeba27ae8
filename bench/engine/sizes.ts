import { modelWidths, parameterLayout, type ModelSpec } from "@segue/core";

/** What is timed: a whole training step, scoring a segment, or one more token for every lane. */
export type Work = "train" | "score" | "decode";

export interface Size {
  readonly model: ModelSpec;
  readonly lanes: number;
  readonly tokens: number;
  readonly work: Work;
}

const mamba2 = (sizes: Pick<ModelSpec, "layers" | "dModel" | "headDim" | "dState" | "vocab">): ModelSpec => ({
  expand: 2,
  dConv: 4,
  groups: 1,
  chunk: 64,
  padVocabMultiple: 1,
  tieEmbeddings: true,
  rmsEps: 1e-5,
  ...sizes,
});

const LARGE = mamba2({ layers: 12, dModel: 768, headDim: 64, dState: 128, vocab: 50288 });

export const SIZES: Readonly<Record<string, Size>> = {
  toy: {
    model: mamba2({ layers: 2, dModel: 64, headDim: 32, dState: 64, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, work: "train" },
  },
  small: {
    model: mamba2({ layers: 2, dModel: 128, headDim: 32, dState: 32, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, work: "train" },
  },
  medium: {
    model: mamba2({ layers: 4, dModel: 512, headDim: 64, dState: 64, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, work: "train" },
  },
  large: { model: LARGE, lanes: 1, tokens: 512, work: "score" },
  decode: { model: LARGE, lanes: 1, tokens: 1, work: "decode" },
  decode8: { model: LARGE, lanes: 8, tokens: 1, work: "decode" },
};

/** C [m, n] = A [m, k] B [k, n], so many times. */
export interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly count: number;
}

export interface Products {
  /** Projections and head. */
  readonly dense: readonly Product[];
  /** Of the chunks of the scan, which do not depend on each other. */
  readonly scan: readonly Product[];
}

/** Every matrix product of a training step or of scoring; training has two backward products for each forward one. */
export function productsOf({ model, lanes, tokens, work }: Size): Products {
  const { dInner, heads, dInProj } = modelWidths(model);
  const { layers, dModel, dState, groups, headDim, chunk, vocab } = model;
  const rows = lanes * tokens;
  const chunks = layers * lanes * Math.ceil(tokens / chunk);
  const groupWidth = dInner / groups;
  const dense = [
    { m: rows, n: dInProj, k: dModel, count: layers },
    { m: rows, n: dModel, k: dInner, count: layers },
    { m: rows, n: vocab, k: dModel, count: 1 },
  ];
  const scan = [
    // C B^T; its triangle with decays times x; what a chunk adds to the state; what it reads from the state.
    { m: chunk, n: chunk, k: dState, count: chunks * groups },
    { m: chunk, n: headDim, k: chunk, count: chunks * heads },
    { m: groupWidth, n: dState, k: chunk, count: chunks * groups },
    { m: chunk, n: groupWidth, k: dState, count: chunks * groups },
  ];
  const all = (forward: readonly Product[]): Product[] =>
    work !== "train"
      ? [...forward]
      : forward.flatMap(({ m, n, k, count }) => [
          { m, n, k, count },
          { m, n: k, k: n, count },
          { m: n, n: k, k: m, count },
        ]);
  return { dense: all(dense), scan: all(scan) };
}

/** Multiply-adds count as two. */
export const flopsOf = ({ m, n, k, count }: Product): number => 2 * m * n * k * count;

/** Plausible weights; any will do for timing. */
export function someParameters(model: ModelSpec): Float32Array {
  const { entries, size } = parameterLayout(model);
  const flat = new Float32Array(size);
  let state = 1;
  for (const { name, shape, offset, size: length } of entries) {
    const scale = shape.length > 1 ? 1 / Math.sqrt(shape.at(-1)!) : 0;
    const mean = shape.length > 1 ? 0 : name.endsWith("dt_bias") ? -4 : 1;
    for (let i = offset; i < offset + length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      flat[i] = mean + scale * (state / 2 ** 31 - 1);
    }
  }
  return flat;
}
