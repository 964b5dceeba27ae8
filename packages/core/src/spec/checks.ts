import type { Violation } from "../errors.js";
import { modelWidths, parameterLayout } from "../model/sizes.js";
import { minimumPasskeyDocumentTokens } from "../passkey/document.js";
import { byteTokenizer } from "../tokenizer/tokenizer.js";
import { DEFAULT_PASSKEY_DATA, DEFAULT_SPEC, MODEL_PRESETS } from "./defaults.js";
import type { JobSpec } from "./job-spec.js";
import { mostLaneTokensPerStep, tokensBefore } from "./step-tokens.js";
import { mostWorkers } from "./placement.js";
import type { Refuse } from "./refuse.js";
import { LIMITS, type JobSpecInput } from "./schema.js";
import { checkEvaluations } from "./evaluation-checks.js";
import { checkTbptt, tbpttWarnings } from "./tbptt-checks.js";

const LEAST_STRAGGLER_FACTOR = 1.2;

/** What the tokens of a step depend on. */
const STEP_SIZES = ["batch.shards", "batch.lanesPerShard", "tbptt.segmentTokens", "tbptt.segmentsPerStep", "tbptt.curriculum"];

interface Checked {
  readonly violations: Violation[];
  readonly warnings: string[];
}

/**
 * The rules that span settings, each stated once. `sound` tells whether none of the named fields has been reported already: a rule over
 * a bad field would only repeat or confuse.
 */
export function crossFieldChecks(input: JobSpecInput, spec: JobSpec, sound: (fields: string[]) => boolean): Checked {
  const checked: Checked = { violations: [], warnings: [] };
  const refuse = (broken: boolean, field: string, description: string, ...fields: string[]): void => {
    if (broken && sound([field, ...fields])) checked.violations.push({ field, description });
  };
  checkModel(input, spec, refuse);
  checkData(input, spec, refuse);
  checkTbptt(spec, refuse);
  checkTraining(input, spec, refuse);
  checkSync(spec, refuse);
  checkEvaluations(input, spec, refuse);
  if (checked.violations.length === 0) checked.warnings.push(...warningsFor(spec));
  return checked;
}

function checkModel(input: JobSpecInput, spec: JobSpec, refuse: Refuse): void {
  const { model } = spec;
  const presets = Object.keys(MODEL_PRESETS).join(", ");
  const unknownPreset = model.preset !== undefined && !Object.hasOwn(MODEL_PRESETS, model.preset);
  refuse(unknownPreset, "model.preset", `must be one of ${presets}, but is "${model.preset ?? ""}"`);
  if (!unknownPreset) {
    refuse(model.layers === 0, "model.layers", `is missing; give it, or a model.preset (${presets})`, "model.preset");
    refuse(model.dModel === 0, "model.dModel", `is missing; give it, or a model.preset (${presets})`, "model.preset");
  }
  if (model.dModel === 0) return;
  const { dInner, heads } = modelWidths(model);
  const sizes = ["model.dModel", "model.expand", "model.preset"];
  const wholeHeads = Number.isInteger(heads);
  refuse(
    !wholeHeads,
    "model.headDim",
    `must divide expand * dModel = ${dInner}, but is ${model.headDim}; the nearest that does is ${nearestDivisor(dInner, model.headDim)}`,
    ...sizes,
  );
  if (!wholeHeads) return;
  refuse(
    heads % model.groups !== 0,
    "model.groups",
    `must divide the number of heads, ${heads}, but is ${model.groups}`,
    "model.headDim",
    ...sizes,
  );
  const parameters = parameterLayout(model).size;
  refuse(parameters > LIMITS.parameters, "model", `has more than ${LIMITS.parameters} parameters; make it smaller`);
  const bytes = spec.tokenizer.kind === "bytes";
  refuse(
    bytes && model.vocab < 256,
    "model.vocab",
    `must be at least the byte tokenizer's 256, but is ${model.vocab}; remove it to follow the tokenizer`,
    "tokenizer.kind",
  );
  const { eosId } = spec.tokenizer;
  refuse(
    bytes && eosId !== undefined && eosId > 255,
    "tokenizer.eosId",
    `must be below the byte tokenizer's 256, but is ${eosId ?? ""}`,
    "tokenizer.kind",
  );
  refuse(
    !bytes && eosId !== undefined && model.vocab > 0 && eosId >= model.vocab,
    "tokenizer.eosId",
    `must be below model.vocab, ${model.vocab}, but is ${eosId ?? ""}`,
    "tokenizer.kind",
    "model.vocab",
  );
  refuse(
    !bytes && spec.tokenizer.file === undefined,
    "tokenizer.file",
    "is missing; give the path of a tokenizer.json",
    "tokenizer.kind",
  );
}

function checkData(input: JobSpecInput, spec: JobSpec, refuse: Refuse): void {
  const { paths, passkey, minDocumentTokens } = spec.data;
  const passkeyGiven = input.data?.passkey !== undefined;
  refuse(
    paths.length === 0 && !passkeyGiven,
    "data",
    "has no source; give data.paths or data.passkey",
    "data.paths",
    "data.passkey",
  );
  refuse(paths.length > 0 && passkeyGiven, "data.passkey", "excludes data.paths; remove one of them", "data.paths");
  if (!passkey) return;
  refuse(
    (passkey.minAskProbability ?? 0) > passkey.askProbability,
    "data.passkey.minAskProbability",
    `must not exceed askProbability, ${passkey.askProbability}, but is ${passkey.minAskProbability ?? ""}`,
    "data.passkey.askProbability",
  );
  refuse(
    passkey.minDepth > passkey.maxDepth,
    "data.passkey.minDepth",
    `must not exceed maxDepth, ${passkey.maxDepth}, but is ${passkey.minDepth}`,
    "data.passkey.maxDepth",
  );
  const least = spec.tokenizer.kind === "bytes" ? minimumPasskeyDocumentTokens(byteTokenizer(), passkey.digits) : 0;
  refuse(
    passkey.documentTokens < least,
    "data.passkey.documentTokens",
    `must be at least ${least} to hold a needle and a question, but is ${passkey.documentTokens}`,
    "data.passkey.digits",
    "tokenizer.kind",
  );
  refuse(
    passkey.documentTokens < minDocumentTokens,
    "data.minDocumentTokens",
    `would drop every document: data.passkey.documentTokens is ${passkey.documentTokens}, this is ${minDocumentTokens}`,
    "data.passkey.documentTokens",
  );
}

function checkTraining(input: JobSpecInput, spec: JobSpec, refuse: Refuse): void {
  const { batch, tbptt, train, schedule, workers } = spec;
  const { steps, tokens } = input.train ?? {};
  refuse(
    steps === undefined && tokens === undefined,
    "train",
    "has no budget; give train.steps or train.tokens",
    "train.steps",
    "train.tokens",
  );
  refuse(steps !== undefined && tokens !== undefined, "train.tokens", "excludes train.steps; remove one of them", "train.steps");
  const perShard = batch.lanesPerShard * mostLaneTokensPerStep(tbptt);
  const perStep = batch.shards * perShard;
  const sizes = STEP_SIZES;
  const ofOneStage = `tbptt.segmentTokens${tbptt.segmentsPerStep > 1 ? " times tbptt.segmentsPerStep" : ""}`;
  const laneTokens = tbptt.curriculum.length === 0 ? ofOneStage : "the most tokens of a lane in tbptt.curriculum";
  refuse(
    perShard > LIMITS.tokensPerShard,
    "batch.lanesPerShard",
    `times ${laneTokens} must not exceed ${LIMITS.tokensPerShard} tokens a shard, but is ${perShard}; use more shards of fewer lanes`,
    ...sizes,
  );
  refuse(
    perShard <= LIMITS.tokensPerShard && perStep > LIMITS.tokensPerStep,
    "batch.shards",
    `times lanesPerShard times ${laneTokens} must not exceed ${LIMITS.tokensPerStep} tokens a step, but is ${perStep}`,
    ...sizes,
  );
  refuse(
    train.steps > 2 ** 32 - 1 || tokensBefore(spec, train.steps) > LIMITS.totalTokens,
    "train",
    "asks for more tokens than can be counted",
    ...sizes,
  );
  refuse(
    train.steps > 0 && !schedule.decayFrom && schedule.warmupSteps + schedule.decaySteps > train.steps,
    "schedule",
    `warmupSteps + decaySteps = ${schedule.warmupSteps + schedule.decaySteps} must not exceed the job's ${train.steps} steps`,
    "train.steps",
    "train.tokens",
    ...sizes,
  );
  refuse(
    schedule.decay === "exponential" && schedule.finalRatio === 0 && (schedule.decaySteps > 0 || schedule.decayFrom !== undefined),
    "schedule.finalRatio",
    "must be above 0 when schedule.decay is exponential, which never reaches 0",
    "schedule.decay",
    "schedule.decaySteps",
    "schedule.decayFrom",
  );
  refuse(
    schedule.decayFrom !== undefined && schedule.decayFrom.step >= train.steps,
    "schedule.decayFrom.step",
    `must be below the job's ${train.steps} steps, but is ${schedule.decayFrom?.step ?? ""}`,
    "train.steps",
    "train.tokens",
    ...sizes,
  );
  const most = mostWorkers(spec);
  const mostName = spec.sync.mode === "diloco" ? "sync.replicas" : "batch.shards";
  refuse(
    workers.max > most,
    "workers.max",
    `must not exceed ${mostName}, ${most}, but is ${workers.max}`,
    "batch.shards",
    "sync.mode",
    "sync.replicas",
  );
  refuse(
    workers.min > workers.max,
    "workers.min",
    `must not exceed ${input.workers?.max === undefined ? mostName : "workers.max"}, ${workers.max}, but is ${workers.min}`,
    "workers.max",
    "batch.shards",
  );
  const { stragglerFactor } = workers;
  refuse(
    stragglerFactor > 0 && stragglerFactor < LEAST_STRAGGLER_FACTOR,
    "workers.stragglerFactor",
    `must be 0 (off) or at least ${LEAST_STRAGGLER_FACTOR}, since step times vary, but is ${stragglerFactor}`,
  );
}

function checkSync(spec: JobSpec, refuse: Refuse): void {
  const { sync, batch, checkpoints } = spec;
  const isSharded = sync.optimizer === "sharded";
  refuse(
    isSharded && sync.mode === "diloco",
    "sync.optimizer",
    "must be replicated with sync.mode diloco, whose replicas step all weights, but is sharded",
    "sync.mode",
  );
  refuse(
    isSharded && sync.mode === "exact" && sync.wire === "bf16",
    "sync.optimizer",
    "must be replicated with sync.wire bf16, but is sharded: weights travel as they are",
    "sync.wire",
  );
  refuse(
    isSharded && sync.mode === "exact" && sync.transport === "grpc",
    "sync.optimizer",
    "must be replicated with sync.transport grpc, but is sharded: members' devices exchange slices by ipc or nccl",
    "sync.transport",
  );
  refuse(
    isSharded && spec.train.engine === "tfjs",
    "sync.optimizer",
    "must be replicated with train.engine tfjs, which hands its gradients out, but is sharded",
    "train.engine",
  );
  if (sync.mode !== "diloco") return;
  const { replicas, innerSteps } = sync;
  refuse(
    batch.shards % replicas !== 0,
    "sync.replicas",
    `must divide batch.shards, ${batch.shards}, but is ${replicas}; the nearest that does is ${nearestDivisor(batch.shards, replicas)}`,
    "sync.mode",
    "batch.shards",
  );
  refuse(
    checkpoints.everySteps % innerSteps !== 0,
    "checkpoints.everySteps",
    `must be a multiple of sync.innerSteps, ${innerSteps}, but is ${checkpoints.everySteps}: between outer steps the replicas differ`,
    "sync.mode",
    "sync.innerSteps",
  );
  const tokens = innerSteps * batch.shards * batch.lanesPerShard * mostLaneTokensPerStep(spec.tbptt);
  refuse(
    tokens > LIMITS.tokensPerRound,
    "sync.innerSteps",
    `times the tokens of a step must not exceed ${LIMITS.tokensPerRound}, since a round's segments lie in memory, but is ${tokens}`,
    "sync.mode",
    ...STEP_SIZES,
  );
}

function warningsFor(spec: JobSpec): string[] {
  const { data, tokenizer, schedule, train, checkpoints } = spec;
  const warnings: string[] = [];
  const warn = (condition: boolean, sentence: string): void => {
    if (condition) warnings.push(sentence);
  };
  const { sync } = spec;
  warn(
    sync.transport === "nccl" && spec.train.engine !== "cuda",
    "sync.transport nccl is for workers with a GPU each; set train.engine to cuda so that only those take the job.",
  );
  warn(
    sync.wire === "bf16",
    "sync.wire bf16 rounds what workers exchange: the weights then depend on how many workers there are and which shards they hold.",
  );
  for (const name of ["innerSteps", "outerLearningRate", "outerMomentum"] as const) {
    warn(sync.mode === "exact" && sync[name] !== DEFAULT_SPEC.sync[name], `sync.${name} has no effect with sync.mode exact.`);
  }
  warn(sync.mode === "exact" && sync.replicas !== spec.batch.shards, "sync.replicas has no effect with sync.mode exact.");
  warn(tokenizer.kind === "bytes" && tokenizer.file !== undefined, "tokenizer.file has no effect with tokenizer.kind bytes.");
  warn(
    schedule.decaySteps === 0 && schedule.finalRatio !== DEFAULT_SPEC.schedule.finalRatio,
    "schedule.finalRatio has no effect without decaySteps.",
  );
  warn(
    train.precision === "bf16" && train.engine !== "cuda",
    "train.precision bf16 is for the cuda engine; the cpu and tfjs engines compute in f32.",
  );
  warn(spec.optimizer.learningRate === 0, "optimizer.learningRate is 0: the weights will not change.");
  warn(
    checkpoints.everySteps > train.steps && checkpoints.everySteps !== DEFAULT_SPEC.checkpoints.everySteps,
    "checkpoints.everySteps exceeds the job's steps: only the last checkpoint is written.",
  );
  const { passkey } = data;
  if (passkey) {
    warn(data.textField !== DEFAULT_SPEC.data.textField, "data.textField has no effect with data.passkey.");
    warn(data.epochs !== DEFAULT_SPEC.data.epochs, "data.epochs has no effect with data.passkey, which never ends.");
    warn(!data.shuffle, "data.shuffle has no effect with data.passkey, whose documents are random already.");
    warn(
      passkey.askProbability === 0 && passkey.answerWeight !== DEFAULT_PASSKEY_DATA.answerWeight,
      "data.passkey.answerWeight has no effect with askProbability 0.",
    );
  }
  warnings.push(...tbpttWarnings(spec));
  return warnings;
}

function nearestDivisor(n: number, wanted: number): number {
  for (let distance = 1; ; distance++) {
    if (wanted - distance >= 1 && n % (wanted - distance) === 0) return wanted - distance;
    if (n % (wanted + distance) === 0) return wanted + distance;
  }
}
