export type {
  AdamWStep,
  DtSums,
  Engine,
  EngineDescription,
  EngineSnapshot,
  EngineOptions,
  FloatStretch,
  ForwardOptions,
  GpuDescription,
  LaneStates,
  LayerMoments,
  PromptBatch,
  Recurrence,
  SegmentBatch,
  SegmentRules,
  TrainingPart,
  TrainingResult,
} from "./engine.js";
export type { EngineReplicas, OuterSettings } from "./exchange/engine-replicas.js";
export type { ExchangeMember, ExchangeOptions, ExchangePlan, GradientExchange } from "./exchange/gradient-exchange.js";
export { availableEngines, createEngine, usableGpus, type EngineName, type EngineOffer } from "./create-engine.js";
export { ncclVersion } from "./cuda/nccl-library.js";
export { curedEngine } from "./cures/cured-engine.js";
export type { TextReader } from "./cures/normalisation.js";
export type { InferenceEngine } from "./cures/state-rule.js";
export { newLayerMoments } from "./native/moments.js";
export { traceStates, type TraceOptions } from "./trace-states.js";
export { effectiveRemembrance, remembranceTokens, type RemembranceOptions } from "./effective-remembrance.js";
export { drawParameters, initialParameters } from "./initial-parameters.js";
export { loadParameters, readModelConfig, readModelFolder, type ModelFolder } from "./checkpoint-folder.js";
export { exportFolder, writeModelFolder, type ExportOptions } from "./export-folder.js";
export { continueText, drawToken, prefillStream, type SamplingOptions } from "./generate.js";
export { greedyDecode, prefillPrompt, type Prompt } from "./decode.js";
export { readVerifyCase, type RandomTokens, type VerifyCase } from "./verify/verify-case.js";
export { VERIFY_LIMITS, verifyEngine, type Measurement, type VerifyReport } from "./verify/verify-engine.js";
export type { GoldenValues } from "./verify/golden.js";
export { readCarriedCases, type CarriedCase } from "./verify/carried-case.js";
export { verifyCarried, type CarriedMeasurement } from "./verify/verify-carried.js";
export { readScanCases, type ScanCase, type ScanCaseShape } from "./verify/scan-case.js";
export { verifyScan, type ScanMeasurement, type ScanReport } from "./verify/verify-scan.js";
export {
  jobMemory,
  largestLanesPerShard,
  shardedMemory,
  type JobMemory,
  type MemoryOptions,
  type ProcessMemory,
} from "./memory/job-memory.js";
export type { MemoryPart } from "./memory/memory-part.js";
