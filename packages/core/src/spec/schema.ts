import { z } from "zod";

/** Bounds that keep every size an ordinary number: far beyond what is sensible, near enough to catch a slip of the keyboard. */
export const LIMITS = {
  parameters: 2 ** 32 - 1,
  tokensPerShard: 2 ** 20,
  tokensPerStep: 2 ** 26,
  /** Of a diloco round, whose segments lie in memory. */
  tokensPerRound: 2 ** 28,
  totalTokens: Number.MAX_SAFE_INTEGER,
  cellsPerEvaluation: 4096,
  bucketsPerCurve: 16384,
  curesPerEvaluation: 64,
  /** Of one prompt of the job's documents, which lies in memory. */
  corpusTokens: 2 ** 24,
  /** Of the packed statistics of one evaluation, which lie in Redis. */
  stateStatisticsBytes: 2 ** 26,
} as const;

const uint32 = 2 ** 32 - 1;

const integer = (min: number, max: number) => {
  const error = min === max ? `must be ${min}` : `must be a whole number from ${min} to ${max}`;
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error }).optional();
};
const number = (min: number, max: number) => {
  const error = `must be a number from ${min} to ${max}`;
  return z.number({ error }).min(min, { error }).max(max, { error }).optional();
};
const flag = () => z.boolean({ error: "must be true or false" }).optional();
const choice = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: `must be one of ${values.join(", ")}` }).optional();
const text = () =>
  z.string({ error: "must be a text" }).min(1, { error: "must not be empty" }).max(4096, { error: "must be shorter" }).optional();
const name = () => {
  const error = "must be 1 to 63 letters, digits, dots, dashes or underscores, the first a letter or digit";
  return z
    .string({ error })
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, { error })
    .optional();
};
const listOf = <T extends z.ZodType>(item: T, min: number, max: number) => {
  const error = `must be a list of ${min} to ${max} entries`;
  return z.array(item, { error }).min(min, { error }).max(max, { error }).optional();
};
const section = <T extends z.ZodRawShape>(shape: T) =>
  z.strictObject(shape, {
    error: (issue) => (issue.code === "unrecognized_keys" ? undefined : "must be a mapping of settings"),
  });
const required = <T extends z.ZodType>(optional: z.ZodOptional<T>) => optional.unwrap();

/** What a person (or the wire) may write: every key optional, unknown keys refused, every value in its absolute range. */
export const jobSpecInputSchema = section({
  name: name(),
  seed: integer(0, uint32),
  priority: integer(-1_000, 1_000),
  model: section({
    preset: text(),
    layers: integer(1, 256),
    dModel: integer(1, 16384),
    dState: integer(1, 1024),
    headDim: integer(1, 1024),
    expand: integer(1, 8),
    dConv: integer(4, 4),
    groups: integer(1, 256),
    chunk: integer(1, 1024),
    vocab: integer(0, 2 ** 20),
    padVocabMultiple: integer(1, 1024),
    tieEmbeddings: flag(),
    rmsEps: number(1e-12, 1e-2),
  }).optional(),
  data: section({
    paths: listOf(required(text()), 0, 10_000),
    textField: text(),
    minDocumentTokens: integer(0, uint32),
    epochs: integer(0, 1_000_000),
    shuffle: flag(),
    passkey: section({
      documentTokens: integer(1, 2 ** 30),
      digits: integer(1, 15),
      minDepth: number(0, 1),
      maxDepth: number(0, 1),
      askProbability: number(0, 1),
      minAskProbability: number(1e-6, 1),
      answerWeight: number(0, 1000),
    }).optional(),
  }).optional(),
  tokenizer: section({
    kind: choice("bytes", "huggingface"),
    file: text(),
    eosId: integer(0, 2 ** 20),
  }).optional(),
  tbptt: section({
    segmentTokens: integer(2, 2 ** 20),
    segmentsPerStep: integer(1, 4096),
    gradient: choice("truncated", "full"),
    segmentsPerChain: integer(0, uint32),
    carrySsm: flag(),
    carryConv: flag(),
    resetAtDocumentEnd: flag(),
    sequence: choice("contiguous", "unrelated"),
    stateDropProbability: number(0, 1),
    initialState: choice("zero", "noise", "fittedNoise"),
    initialStateStd: number(0, 1000),
    curriculum: listOf(
      section({
        fromStep: required(integer(1, uint32)),
        segmentTokens: integer(2, 2 ** 20),
        segmentsPerStep: integer(1, 4096),
        segmentsPerChain: integer(0, uint32),
      }),
      0,
      64,
    ),
  }).optional(),
  batch: section({
    shards: integer(1, 4096),
    lanesPerShard: integer(1, 65536),
  }).optional(),
  optimizer: section({
    learningRate: number(0, 10),
    beta1: number(0, 0.999999),
    beta2: number(0, 0.999999),
    epsilon: number(1e-15, 1),
    weightDecay: number(0, 10),
    clipNorm: number(0, 1e6),
  }).optional(),
  schedule: section({
    warmupSteps: integer(0, uint32),
    decaySteps: integer(0, uint32),
    decay: choice("linear", "cosine", "exponential"),
    finalRatio: number(0, 1),
    decayFrom: section({ step: required(integer(0, uint32)), learningRate: required(number(0, 10)) }).optional(),
    revision: integer(1, 2),
  }).optional(),
  train: section({
    steps: integer(1, uint32),
    tokens: integer(1, Number.MAX_SAFE_INTEGER),
    precision: choice("f32", "bf16"),
    engine: choice("auto", "cuda", "cpu", "tfjs"),
  }).optional(),
  sync: section({
    mode: choice("exact", "diloco"),
    replicas: integer(1, 4096),
    innerSteps: integer(1, 10_000),
    outerLearningRate: number(0, 10),
    outerMomentum: number(0, 0.999999),
    wire: choice("f32", "bf16"),
    transport: choice("auto", "ipc", "nccl", "grpc"),
    optimizer: choice("replicated", "sharded"),
  }).optional(),
  rounds: section({
    targetMs: integer(1, 600_000),
    maxSteps: integer(1, 10_000),
  }).optional(),
  checkpoints: section({
    everySteps: integer(0, uint32),
    keepLast: integer(1, 10_000),
    keepEvery: integer(0, uint32),
  }).optional(),
  evaluations: listOf(
    section({
      name: name(),
      everyCheckpoints: integer(1, 1_000_000),
      cures: listOf(
        section({
          kind: choice("none", "reduced", "normalised", "window", "longMamba"),
          retention: number(1e-6, 1),
          insertion: number(0, 100),
          multiplier: number(1e-6, 1e6),
          referenceTokens: integer(1, 2 ** 30),
          tokens: integer(1, 2 ** 30),
          everyTokens: integer(1, 2 ** 30),
          dtScale: number(1e-6, 100),
        }),
        1,
        LIMITS.curesPerEvaluation,
      ),
      passkey: section({
        lengths: listOf(required(integer(1, 2 ** 30)), 1, 256),
        depths: listOf(required(number(0, 1)), 1, 256),
        samples: integer(1, 10_000),
        digits: integer(1, 15),
        seed: integer(0, uint32),
        template: choice("paper", "code"),
        carryState: flag(),
        stopWidth: number(0, 1),
      }).optional(),
      lossByPosition: section({
        tokens: integer(1, 2 ** 30),
        bucketTokens: integer(1, 2 ** 30),
        prompt: choice("newlines", "passkey", "random", "corpus"),
        prompts: integer(1, 4096),
        seed: integer(0, uint32),
        trainTokens: integer(1, 2 ** 30),
        collapseFactor: number(1, 1000),
      }).optional(),
      stateStatistics: section({
        tokens: integer(1, 2 ** 30),
        everyTokens: integer(1, 2 ** 20),
        histogramTokens: listOf(required(integer(1, 2 ** 30)), 1, 256),
        prompt: choice("newlines", "passkey", "random", "corpus"),
        seed: integer(0, uint32),
        trainTokens: integer(1, 2 ** 30),
      }).optional(),
      effectiveRemembrance: section({
        tokens: integer(2, 2 ** 24),
        starts: listOf(required(integer(0, 2 ** 24)), 1, 256),
        prompt: choice("newlines", "passkey", "random", "corpus"),
        prompts: integer(1, 4096),
        seed: integer(0, uint32),
      }).optional(),
    }),
    0,
    32,
  ),
  workers: section({
    min: integer(1, 4096),
    max: integer(1, 4096),
    stragglerFactor: number(0, 1_000),
  }).optional(),
});

/** A job spec as written: what is absent takes its default. */
export type JobSpecInput = z.input<typeof jobSpecInputSchema>;

/** The setting names allowed at a path of the input (list positions are numbers). */
export function settingNames(path: readonly PropertyKey[]): string[] {
  let schema: z.core.$ZodType = jobSpecInputSchema;
  const unwrapped = (): z.core.$ZodType => {
    while (schema instanceof z.ZodOptional) schema = schema.unwrap();
    return schema;
  };
  for (const key of path) {
    const container = unwrapped();
    if (container instanceof z.ZodArray) schema = container.element;
    else if (container instanceof z.ZodObject) schema = (container.shape as Record<PropertyKey, z.core.$ZodType>)[key] ?? schema;
  }
  const found = unwrapped();
  return found instanceof z.ZodObject ? Object.keys(found.shape) : [];
}
