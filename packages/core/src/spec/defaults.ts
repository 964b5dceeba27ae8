import { NO_CURE } from "../cures/cure.js";
import type {
  EffectiveRemembranceSpec,
  EvaluationSpec,
  JobSpec,
  LossByPositionSpec,
  ModelSpec,
  PasskeyDataSpec,
  StateStatisticsSpec,
} from "./job-spec.js";

/**
 * Every default of a job spec. Values are the paper's (paper.md section 13) unless a comment says otherwise. What has no default must be
 * given: the model's size (`preset`, or `layers` and `dModel`), the data (`paths` or `passkey`) and the budget (`steps` or `tokens`).
 */
export const DEFAULT_SPEC = {
  name: "job",
  seed: 0,
  priority: 0,
  model: {
    dState: 128,
    headDim: 64,
    expand: 2,
    dConv: 4,
    groups: 1,
    chunk: 256,
    vocab: 0, // 0: what the tokenizer needs, padded
    padVocabMultiple: 16,
    tieEmbeddings: true,
    rmsEps: 1e-5,
  },
  data: {
    paths: [],
    textField: "text",
    minDocumentTokens: 4096, // 0 for the passkey source, whose documents have one length
    epochs: 0, // ours: the budget is in train.steps, so the documents are read as often as it takes
    shuffle: true,
  },
  tokenizer: { kind: "bytes" },
  tbptt: {
    segmentTokens: 2048, // the paper's "12 segments" come from segments of 2K
    segmentsPerStep: 1,
    gradient: "truncated",
    segmentsPerChain: 12,
    carrySsm: true,
    carryConv: true, // the paper's code starts the convolution from zeros; carrying it is exact
    resetAtDocumentEnd: true, // ours: the paper joins documents without a reset; false with sequence unrelated
    sequence: "contiguous",
    stateDropProbability: 0,
    initialState: "zero",
    initialStateStd: 0.1, // ours: Ruiz and Gu name no value
    curriculum: [],
  },
  batch: { shards: 64, lanesPerShard: 4 }, // 64 x 4 x 2048 = the paper's 524,288 tokens a step
  optimizer: { learningRate: 5e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 },
  schedule: {
    warmupSteps: 1000, // at most a tenth of the job, rounded up, when not given; decaySteps when not given: a tenth, rounded up
    decay: "linear",
    finalRatio: 0,
    revision: 2,
  },
  train: { precision: "f32", engine: "auto" }, // ours: f32 is what every engine does; bf16 is the paper's
  // DiLoCo's own values (arXiv 2311.08105, table 1 and section 3); replicas when not given: one for each shard
  sync: {
    mode: "exact",
    innerSteps: 500,
    outerLearningRate: 0.7,
    outerMomentum: 0.9,
    wire: "f32",
    transport: "auto",
    optimizer: "replicated",
  },
  rounds: { targetMs: 2000, maxSteps: 256 },
  checkpoints: { everySteps: 1000, keepLast: 3, keepEvery: 0 },
  evaluations: [],
  workers: { min: 1, stragglerFactor: 2 }, // max when not given: one worker for each shard
} as const satisfies {
  [K in keyof JobSpec]: K extends "schedule" ? object : Partial<JobSpec[K]>;
};

/** Defaults inside `data.passkey`; the recipe that is known to learn (speed.md, last section), with the paper's five digits. */
export const DEFAULT_PASSKEY_DATA: PasskeyDataSpec = {
  documentTokens: 2048,
  digits: 5,
  minDepth: 0,
  maxDepth: 0.5,
  askProbability: 0.5,
  answerWeight: 10,
};

/** Defaults inside each entry of `evaluations`, which is of the passkey kind when it says nothing else. */
export const DEFAULT_EVALUATION = {
  name: "passkey",
  everyCheckpoints: 1,
  cures: [NO_CURE],
  passkey: {
    lengths: [1024, 2048, 4096, 8192],
    depths: [0.1, 0.3, 0.5, 0.7, 0.9],
    samples: 20,
    digits: 5,
    seed: 0,
    template: "paper",
    carryState: true,
    stopWidth: 0,
  },
} as const satisfies EvaluationSpec;

/**
 * Defaults inside `evaluations[].lossByPosition`. trainTokens when not given: a chain of segments, or one segment where chains have no end;
 * the buckets are at most that.
 */
export const DEFAULT_LOSS_BY_POSITION = {
  name: "loss-by-position",
  tokens: 2 ** 20,
  bucketTokens: 8192,
  prompt: "newlines",
  prompts: 1, // of newlines there is one; the paper's rule takes 128 of the others
  seed: 0,
  collapseFactor: 2,
} as const satisfies Partial<LossByPositionSpec> & { name: string };

/**
 * Defaults inside `evaluations[].stateStatistics`, the paper's (paper.md 1.3, M2). Histograms when not given: at a quarter of the text and
 * at its end; trainTokens as above.
 */
export const DEFAULT_STATE_STATISTICS = {
  name: "state-statistics",
  tokens: 32768,
  everyTokens: 128,
  prompt: "newlines",
  seed: 0,
} as const satisfies Partial<StateStatisticsSpec> & { name: string };

/** Defaults inside `evaluations[].effectiveRemembrance` (paper.md 8.5). Starts when not given: 15, equally far apart. */
export const DEFAULT_EFFECTIVE_REMEMBRANCE = {
  name: "effective-remembrance",
  tokens: 8192,
  prompt: "corpus", // the same token over and over cannot be told from less of it
  prompts: 8,
  seed: 0,
} as const satisfies Partial<EffectiveRemembranceSpec> & { name: string };

/** Named sizes: the public Mamba-2 models (paper.md 7.8) and the three the paper trains from scratch (3.4). Vocabulary is the tokenizer's. */
export const MODEL_PRESETS: Readonly<Record<string, Pick<ModelSpec, "layers" | "dModel">>> = {
  "mamba2-36m": { layers: 6, dModel: 512 },
  "mamba2-47m": { layers: 12, dModel: 512 },
  "mamba2-85m": { layers: 12, dModel: 768 },
  "mamba2-130m": { layers: 24, dModel: 768 },
  "mamba2-370m": { layers: 48, dModel: 1024 },
  "mamba2-780m": { layers: 48, dModel: 1536 },
  "mamba2-1.3b": { layers: 48, dModel: 2048 },
  "mamba2-2.7b": { layers: 64, dModel: 2560 },
};
