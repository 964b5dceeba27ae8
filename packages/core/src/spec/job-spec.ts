import type { CureSpec } from "../cures/cure.js";

/** A job spec after validation: every default filled in, every number in range. The YAML keys are these names. */
export interface JobSpec {
  readonly name: string;
  /** Seeds initialisation, document order and synthetic documents; uint32. */
  readonly seed: number;
  /** Jobs of higher priority get workers first; those of equal priority in order of submission. Nobody loses workers to it. */
  readonly priority: number;
  readonly model: ModelSpec;
  readonly data: DataSpec;
  readonly tokenizer: TokenizerSpec;
  readonly tbptt: TbpttSpec;
  readonly batch: BatchSpec;
  readonly optimizer: OptimizerSpec;
  readonly schedule: ScheduleSpec;
  readonly train: TrainSpec;
  readonly sync: SyncSpec;
  readonly rounds: RoundsSpec;
  readonly checkpoints: CheckpointsSpec;
  readonly evaluations: readonly EvaluationSpec[];
  readonly workers: WorkersSpec;
}

/** Mamba-2 sizes; `preset` is already resolved into the other fields. */
export interface ModelSpec {
  readonly preset?: string | undefined;
  readonly layers: number;
  readonly dModel: number;
  readonly dState: number;
  readonly headDim: number;
  readonly expand: number;
  readonly dConv: number;
  readonly groups: number;
  /** Tokens per chunk of the SSD scan; never changes results beyond rounding. */
  readonly chunk: number;
  /** Rows of the embedding, padding included. */
  readonly vocab: number;
  readonly padVocabMultiple: number;
  readonly tieEmbeddings: boolean;
  readonly rmsEps: number;
}

export interface DataSpec {
  /** Files, directories or globs; empty when `passkey` is the source. */
  readonly paths: readonly string[];
  readonly textField: string;
  readonly minDocumentTokens: number;
  /** Times the documents are read; 0: for ever. */
  readonly epochs: number;
  readonly shuffle: boolean;
  readonly passkey?: PasskeyDataSpec | undefined;
}

export interface PasskeyDataSpec {
  readonly documentTokens: number;
  readonly digits: number;
  readonly minDepth: number;
  readonly maxDepth: number;
  readonly askProbability: number;
  /** Each document draws its own probability, log-uniformly between this and `askProbability`; absent: all have `askProbability`. */
  readonly minAskProbability?: number | undefined;
  readonly answerWeight: number;
}

export interface TokenizerSpec {
  readonly kind: "bytes" | "huggingface";
  readonly file?: string | undefined;
  readonly eosId?: number | undefined;
}

export interface TbpttSpec {
  readonly segmentTokens: number;
  /** Consecutive segments of every lane that one optimizer step consumes. */
  readonly segmentsPerStep: number;
  /** How far gradients flow back: to the start of their segment, or through all segments of the step. */
  readonly gradient: "truncated" | "full";
  /** Segments until the state is zeroed again; 0: unlimited. */
  readonly segmentsPerChain: number;
  readonly carrySsm: boolean;
  readonly carryConv: boolean;
  readonly resetAtDocumentEnd: boolean;
  /** What a lane's state goes on to after a segment: the next one of the same document, or one of another (state passing). */
  readonly sequence: "contiguous" | "unrelated";
  /** Probability that a lane's state is dropped before a segment, so that a chain begins there. */
  readonly stateDropProbability: number;
  /** The SSM state where a chain begins (docs/design/initial-states.md). */
  readonly initialState: "zero" | "noise" | "fittedNoise";
  /** Standard deviation of `noise`. */
  readonly initialStateStd: number;
  /** In order of step; see `tbpttStages`. */
  readonly curriculum: readonly TbpttStage[];
}

/** Settings that change from a step (0-based) on. */
export interface TbpttStage {
  readonly fromStep: number;
  readonly segmentTokens?: number | undefined;
  readonly segmentsPerStep?: number | undefined;
  readonly segmentsPerChain?: number | undefined;
}

export interface BatchSpec {
  readonly shards: number;
  readonly lanesPerShard: number;
}

export interface OptimizerSpec {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Largest global gradient norm; 0: no clipping. */
  readonly clipNorm: number;
}

/** See `learningRateAt`. */
export interface ScheduleSpec {
  readonly warmupSteps: number;
  readonly decaySteps: number;
  readonly decay: "linear" | "cosine" | "exponential";
  /** Share of the learning rate that the step after the last one would have. */
  readonly finalRatio: number;
  /** From this step (0-based) on the rate falls from this value, whatever `decaySteps` says; set by an edit in mid-decay. */
  readonly decayFrom?: { readonly step: number; readonly learningRate: number } | undefined;
  /** 1: jobs of before, whose decay ended at `train.steps` even where the documents ended earlier, and at `finalRatio`. */
  readonly revision: number;
}

export interface TrainSpec {
  /** Optimizer steps; `tokens` in a YAML file is converted to it. */
  readonly steps: number;
  readonly precision: "f32" | "bf16";
  readonly engine: "auto" | "cuda" | "cpu" | "tfjs";
}

/** How the shards' work is brought together (docs/design/sync.md). */
export interface SyncSpec {
  /** exact: gradients are added at every step. diloco: replicas train alone for `innerSteps`, then an outer step joins them. */
  readonly mode: "exact" | "diloco";
  /** Equal groups of neighbouring shards that train alone under diloco. Results depend on it, never on who holds them. */
  readonly replicas: number;
  readonly innerSteps: number;
  readonly outerLearningRate: number;
  /** Nesterov momentum of the outer step. */
  readonly outerMomentum: number;
  /** What sums are rounded to between workers. bf16 halves the bytes and gives up the equality with one worker. */
  readonly wire: "f32" | "bf16";
  readonly transport: "auto" | "ipc" | "nccl" | "grpc";
  /** replicated: every member holds AdamW's moments and steps all weights. sharded: each does so for its slice alone; the same bits. */
  readonly optimizer: "replicated" | "sharded";
}

export interface RoundsSpec {
  readonly targetMs: number;
  readonly maxSteps: number;
}

export interface CheckpointsSpec {
  /** 0: only at the end, on pause and on shutdown. */
  readonly everySteps: number;
  /** The newest ones; older ones are deleted. */
  readonly keepLast: number;
  /** Those whose step is a multiple are kept as well; 0: none. */
  readonly keepEvery: number;
}

/** Of exactly one kind. */
export interface EvaluationSpec {
  readonly name: string;
  readonly everyCheckpoints: number;
  /** It is run once with each. */
  readonly cures: readonly CureSpec[];
  readonly passkey?: PasskeyEvaluationSpec | undefined;
  readonly lossByPosition?: LossByPositionSpec | undefined;
  readonly stateStatistics?: StateStatisticsSpec | undefined;
  readonly effectiveRemembrance?: EffectiveRemembranceSpec | undefined;
}

/** What long prompts are made of. */
export type PromptKind = "newlines" | "passkey" | "random" | "corpus";

/** Cross-entropy of every position of long prompts, the state carried from zero on, and whether it shows state collapse. */
export interface LossByPositionSpec {
  /** Positions of each prompt, a multiple of `bucketTokens`. */
  readonly tokens: number;
  /** Losses are averaged over so many neighbouring positions. */
  readonly bucketTokens: number;
  readonly prompt: PromptKind;
  /** Losses are averaged over so many prompts. */
  readonly prompts: number;
  readonly seed: number;
  /** The training length of the collapse rule. */
  readonly trainTokens: number;
  /** A loss above so many times the largest within `trainTokens` is a collapse. */
  readonly collapseFactor: number;
}

/** Statistics of the recurrent state along one long prompt (docs/reference/state-statistics.md). */
export interface StateStatisticsSpec {
  readonly tokens: number;
  /** Tokens between two samples. */
  readonly everyTokens: number;
  /** The first samples at or behind these have histograms. */
  readonly histogramTokens: readonly number[];
  readonly prompt: PromptKind;
  readonly seed: number;
  /** Of the summary: which heads grow beyond it, and what they keep of the first token there. */
  readonly trainTokens: number;
}

/** How far predictions after a context are from those after the context without its first tokens. */
export interface EffectiveRemembranceSpec {
  /** Of the whole context. */
  readonly tokens: number;
  /** How many of the first tokens are left out, in turn. */
  readonly starts: readonly number[];
  readonly prompt: PromptKind;
  /** Distances are averaged over so many prompts. */
  readonly prompts: number;
  readonly seed: number;
}

export interface PasskeyEvaluationSpec {
  /** Context lengths in tokens. */
  readonly lengths: readonly number[];
  readonly depths: readonly number[];
  readonly samples: number;
  readonly digits: number;
  readonly seed: number;
  readonly template: "paper" | "code";
  /** false: the recurrent state is zeroed at every segment boundary (the control experiment). */
  readonly carryState: boolean;
  /** A cell ends before `samples` when its accuracy's 95 % interval is narrower than this; 0: never. */
  readonly stopWidth: number;
}

export interface WorkersSpec {
  readonly min: number;
  readonly max: number;
  /** A member that takes this many times the others' median time is moved off when a spare worker is there; 0: never. */
  readonly stragglerFactor: number;
}
