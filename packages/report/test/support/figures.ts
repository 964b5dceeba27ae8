import { CAPACITY_LAWS, CAPACITY_POINTS, fitExponential, fitLine, recentAccuracy } from "@segue/core";
import type { Course, Figure, FigureKindName } from "../../src/index.js";

const TRAIN_TOKENS = 2048;
const LENGTHS = [1024, 2048, 4096, 8192, 16_384];
const DEPTHS = [0, 0.25, 0.5, 0.75, 1];
const TOKENS = Array.from({ length: 160 }, (_, index) => 128 * (index + 1));

const cells = LENGTHS.flatMap((length) =>
  DEPTHS.map((depth) => ({
    length,
    depth,
    correct: Math.round(50 / (1 + ((length * (1.3 - depth)) / 4000) ** 4)),
    samples: 50,
  })),
);

/** Courses of eight heads, each with its own pace. */
function heads(value: (tokens: number, pace: number) => number): Course[] {
  return Array.from({ length: 8 }, (_, head) => ({
    name: `layer 38 head ${head}`,
    values: TOKENS.map((tokens) => value(tokens, 10 ** -(head / 2))),
  }));
}

function losses(lossAt: (position: number) => number): number[] {
  return Array.from({ length: 1024 }, (_, bucket) => lossAt((bucket + 0.5) * 128));
}

function histogram(tokens: number, spread: number): { tokens: number; low: number; high: number; counts: number[] } {
  const counts = Array.from({ length: 40 }, (_, bin) =>
    Math.round(8000 * Math.exp(-(((bin - 20) / 3.5) ** 2)) + (bin % 7 === 0 ? 2 : 0)),
  );
  return { tokens, low: -spread, high: spread, counts };
}

const decays = (position: number): number => 2.1 + 2 * Math.exp(-position / 300);

/** One plausible figure of every kind. */
export const FIGURES: { readonly [Name in FigureKindName]: Extract<Figure, { kind: Name }> } = {
  passkeyMap: {
    kind: "passkeyMap",
    id: "passkey",
    title: "Passkeys repeated (%)",
    caption: "Keys near the end of the context are found longest.",
    lengths: LENGTHS,
    depths: DEPTHS,
    cells,
  },
  recentAccuracy: {
    kind: "recentAccuracy",
    id: "recent",
    title: "Accuracy on keys in the last r tokens",
    caption: "With 95 % intervals.",
    entries: recentAccuracy(cells),
  },
  checkpointAccuracy: {
    kind: "checkpointAccuracy",
    id: "checkpoints",
    title: "Passkey accuracy of checkpoints",
    caption: "More data, less forgetting.",
    checkpoints: [1000, 2000, 4000, 8000].map((step, index) => ({
      name: `step ${step}`,
      points: LENGTHS.map((length) => {
        const accuracy = (0.5 + index / 6) / (1 + (length / (9000 - 1800 * index)) ** 3);
        return { length, accuracy, interval: { low: 0.8 * accuracy, high: Math.min(1, 1.1 * accuracy) } };
      }),
    })),
    trainTokens: TRAIN_TOKENS,
  },
  lossByPosition: {
    kind: "lossByPosition",
    id: "loss",
    title: "Loss by position, with and without cures",
    caption: "Without a cure the loss rises beyond the training length.",
    curves: [
      { name: "none", bucketTokens: 128, losses: losses((position) => decays(position) + 6 / (1 + (14_000 / position) ** 3)) },
      { name: "reduced-0.9999-0.75", bucketTokens: 128, losses: losses((position) => decays(position) + 0.3) },
      { name: "window-8192-128", bucketTokens: 128, losses: losses((position) => decays(position) + 0.15) },
      {
        name: "normalised-1-4096-128",
        bucketTokens: 128,
        losses: losses((position) => decays(position) + 0.8).map((loss, at) => (at % 97 === 0 ? null : loss)),
      },
      { name: "longmamba-0.5", bucketTokens: 128, losses: losses((position) => decays(position) + 0.5 + position / 90_000) },
    ],
    trainTokens: TRAIN_TOKENS,
    collapseLoss: 2 * decays(64),
  },
  trainingCurve: {
    kind: "trainingCurve",
    id: "training",
    title: "Training loss",
    caption: "The loss falls.",
    curves: [
      {
        name: "job",
        points: Array.from({ length: 400 }, (_, index) => ({
          step: 10 * index + 10,
          loss: 1.4 + 4 * Math.exp(-index / 40) + 0.1 * Math.sin(index * 1.7),
        })),
      },
    ],
    step: 3000,
  },
  retention: {
    kind: "retention",
    id: "retention",
    title: "What is left of the first token",
    caption: "Three heads keep nearly all of it.",
    tokens: TOKENS,
    heads: heads((tokens, pace) => Math.exp((-tokens * (1 - pace)) / 6000 - tokens * 1e-7)),
    trainTokens: TRAIN_TOKENS,
  },
  remembrance: {
    kind: "remembrance",
    id: "remembrance",
    title: "Effective remembrance",
    caption: "How far the prediction moves.",
    curves: [
      { name: "before", points: [16, 64, 256, 1024, 4096, 8191].map((start) => ({ start, distance: start / (start + 40) })) },
      { name: "after", points: [16, 64, 256, 1024, 4096, 8191].map((start) => ({ start, distance: start / (start + 6000) })) },
    ],
  },
  stateMoments: {
    kind: "stateMoments",
    id: "moments",
    title: "Mean and variance of the states",
    caption: "Some variances explode.",
    tokens: TOKENS,
    means: heads((tokens, pace) => pace * Math.sin(tokens / 3000) * 0.01),
    variances: heads((tokens, pace) => pace * (0.02 + (tokens / 9000) ** 3)),
    trainTokens: TRAIN_TOKENS,
  },
  channelHistogram: {
    kind: "channelHistogram",
    id: "histogram",
    title: "Channels of layer 38 head 2",
    caption: "A few outliers.",
    places: [histogram(8192, 6), histogram(20_480, 25)],
  },
  headInputs: {
    kind: "headInputs",
    id: "inputs",
    title: "What enters the recurrence",
    caption: "Time step and sizes by head.",
    tokens: TOKENS,
    dt: heads((tokens, pace) => pace * 0.1 * (1 + 0.1 * Math.sin(tokens / 700))),
    b: heads((tokens, pace) => 3 + pace * Math.cos(tokens / 1500)),
    x: heads((tokens, pace) => 8 * pace + Math.sin(tokens / 900)),
    trainTokens: TRAIN_TOKENS,
  },
  recallFit: {
    kind: "recallFit",
    id: "recall",
    title: "Longest recall against state size",
    caption: "Faster than linear.",
    points: CAPACITY_POINTS.recall.map(({ x, y }) => ({ x, y: 1.05 * y })),
    published: CAPACITY_POINTS.recall,
    fit: fitExponential(CAPACITY_POINTS.recall),
  },
  forgetFit: {
    kind: "forgetFit",
    id: "forget",
    title: "Training length for robust forgetting against state size",
    caption: `The paper's slope is ${CAPACITY_LAWS.forget.slope}.`,
    points: CAPACITY_POINTS.forget,
    fit: fitLine(CAPACITY_POINTS.forget),
  },
  stateSizes: {
    kind: "stateSizes",
    id: "sizes",
    title: "State size against model size",
    caption: "Mamba-2 has the larger states.",
    families: [
      {
        name: "Mamba-2",
        models: [
          { name: "130M", parameters: 128_989_632, stateFloats: 4_847_616 },
          { name: "370M", parameters: 368_346_624, stateFloats: 12_914_688 },
          { name: "780M", parameters: 780_161_280, stateFloats: 19_353_600 },
        ],
      },
      {
        name: "RWKV-6",
        models: [
          { name: "1.6B", parameters: 1.6e9, stateFloats: 3_244_032 },
          { name: "3B", parameters: 3.1e9, stateFloats: 5_406_720 },
        ],
      },
    ],
  },
  curves: {
    kind: "curves",
    id: "sweep",
    title: "Learning rates",
    caption: "Passkey accuracy picks the best.",
    x: { title: "learning rate", scale: "log10", format: "plain" },
    y: { title: "accuracy", scale: "linear", format: "percent" },
    curves: [
      {
        name: "130M",
        points: [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3].map((x, index) => ({ x, y: 0.3 + 0.09 * index - 0.01 * index ** 2 })),
      },
    ],
    marks: [{ axis: "x", at: 5e-4, label: "chosen" }],
  },
};
