export type * from "./spec/job-spec.js";
export { SegueError, type SegueErrorOptions, type StatusName, type Violation } from "./errors.js";
export {
  convStateFloats,
  laneStateFloats,
  modelWidths,
  parameterLayout,
  ssmStateFloats,
  type ModelWidths,
  type ParameterEntry,
  type ParameterLayout,
} from "./model/sizes.js";
export { cureKey, NO_CURE, type CureSpec } from "./cures/cure.js";
export type { CureInput } from "./cures/cure-settings.js";
export { rankCures, type RankedCure } from "./cures/cure-grid.js";
export { cureSchema } from "./cures/cure-schema.js";
export { parseCure } from "./cures/parse-cure.js";
export { onePage, PAGE_FLOATS, pagedFloats, setFloats, stretches, type PagedFloats, type Stretch } from "./paged-floats.js";
export { randomStream, type Random } from "./random.js";
export {
  DEFAULT_EFFECTIVE_REMEMBRANCE,
  DEFAULT_EVALUATION,
  DEFAULT_LOSS_BY_POSITION,
  DEFAULT_PASSKEY_DATA,
  DEFAULT_SPEC,
  DEFAULT_STATE_STATISTICS,
  MODEL_PRESETS,
} from "./spec/defaults.js";
export { modelVectors, mostWorkers, shardsPerPlacement } from "./spec/placement.js";
export { LIMITS, type JobSpecInput } from "./spec/schema.js";
export {
  laneTokensPerStep,
  mostLaneTokensPerStep,
  segmentsBefore,
  stepsForTokens,
  tokensBefore,
  tokensPerStep,
} from "./spec/step-tokens.js";
export { stageEnd, tbpttAt, tbpttStages, trainingLength } from "./spec/tbptt-stages.js";
export {
  problems,
  resolveVocabulary,
  specInvalid,
  storedJobSpec,
  unknownSetting,
  validateJobSpec,
  type ParsedSpec,
} from "./spec/validate.js";
export { EVALUATION_KINDS, evaluationKind, type EvaluationKind } from "./spec/evaluation-kind.js";
export { EDITABLE_SETTINGS, editJobSpec, type EditedSpec } from "./spec/edit.js";
export { jobSpecToYaml, parseJobSpec, plainYaml } from "./spec/yaml.js";
export { addsWhole } from "./reduction/adds-whole.js";
export { optimizerSlice, SLICE_BLOCK_FLOATS } from "./reduction/optimizer-slice.js";
export { maximalNodes, splitPoint, type ReductionNode } from "./reduction/tree.js";
export { roundToBf16, widenBf16 } from "./bf16.js";
export {
  configFromHuggingFace,
  configToHuggingFace,
  EXPORT_DTYPES,
  flattenParameters,
  placedParameters,
  type ExportDtype,
} from "./checkpoint/hugging-face.js";
export { namedEndTokens, type EndTokenFiles } from "./checkpoint/end-tokens.js";
export { folderTexts, weightFiles, type WeightFile } from "./checkpoint/folder-files.js";
export { parsePythonJson } from "./checkpoint/python-json.js";
export {
  decodeSafetensors,
  encodeSafetensors,
  readSafetensorsHeader,
  safetensorsHeader,
  safetensorsHeaderLength,
  tensorToFloat32,
  type SafetensorsDtype,
  type SafetensorsEntry,
  type SafetensorsRange,
  type SafetensorsTensor,
} from "./checkpoint/safetensors.js";
export { fittedSchedule, learningRateAt } from "./schedule/learning-rate.js";
export { drawInitialState, type InitialStateRule } from "./state/initial-state.js";
export { apply } from "./ledger/apply.js";
export {
  ledgerMark,
  parseEventLog,
  type EventLogContent,
  type EventLogEntry,
  type LedgerMark,
  type SettingChange,
} from "./ledger/event-log.js";
export { recordedChange, type LogChange } from "./ledger/compact-log.js";
export { replayEvents, type CommittedStep, type EventReplay, type ReplayProblem } from "./ledger/replay-events.js";
export { assignShards } from "./ledger/assign-shards.js";
export { decide, type Circumstances, type Decision, type Intent, type JobFailure } from "./ledger/decide.js";
export { divergedStep, judgeDigests, reportsByWorker, type DivergedStep, type Judgement } from "./ledger/judge-round.js";
export {
  createLedger,
  isHeldBy,
  type Ledger,
  type LedgerEvent,
  type LedgerMember,
  type LedgerOrigin,
  type LedgerPhase,
  type LedgerRound,
  type MemberDigest,
  type RoundReport,
  type StepReport,
} from "./ledger/ledger.js";
export { initialCursor, type DataCounters, type DataCursor, type LaneCursor } from "./data/cursor.js";
export { skipTokens, type DocumentChunk, type DocumentSource } from "./data/document-source.js";
export { minimumPasskeyDocumentTokens, passkeyDocument, passkeySource } from "./passkey/document.js";
export { minimumPasskeyPromptTokens, passkeyPrompt, type PasskeyPrompt, type PasskeyPromptOptions } from "./passkey/prompt.js";
export {
  CAPACITY_LAWS,
  CAPACITY_POINTS,
  CAPACITY_UNITS,
  capacityPoint,
  modelCapacity,
  type ModelCapacity,
} from "./capacity/capacity.js";
export { fitExponential, fitLine, type ExponentialFit, type Fit, type LineFit, type Point } from "./capacity/fit.js";
export { convStatistics, headHistograms, headStatistics, type HeadStatistics } from "./state/head-statistics.js";
export { histogramOf, type Histogram } from "./state/histogram.js";
export { packedStateBytes, packStates } from "./state/pack-states.js";
export { firstTokenRetention } from "./state/retention.js";
export type { HeadInputs, StateSample } from "./state/state-sample.js";
export { summariseStates, varianceGrowth, type HeadGrowth, type HeadShare, type StateSummary } from "./state/state-summary.js";
export { valueStatistics, type ValueStatistics } from "./state/value-statistics.js";
export { remembranceStarts, totalVariation } from "./position/effective-remembrance.js";
export { judgeCollapse, meanCurve, type CollapseVerdict, type LossCurve } from "./position/collapse.js";
export { lossSpans, meanLoss, type LossSpan } from "./position/spans.js";
export { corpusText, type CorpusText } from "./position/corpus-text.js";
export { positionPrompt, type GeneratedPrompt, type PositionPrompt } from "./position/prompt.js";
export { RECENT_TOKENS, recentAccuracy, type PasskeyCount, type RecentAccuracy } from "./passkey/recent.js";
export { wilsonInterval, type Interval } from "./statistics/wilson.js";
export { PASSKEY_TEMPLATES, type PasskeyTemplate } from "./passkey/text.js";
export {
  byteTokenizer,
  createTokenizer,
  huggingFaceTokenizer,
  type HuggingFaceTokenizerOptions,
  type Tokenizer,
} from "./tokenizer/tokenizer.js";
export { documentTokens } from "./tokenizer/document-tokens.js";
export type { TokenStream } from "./tokenizer/token-stream.js";
export { byteTokenizerJson, isByteTokenizer } from "./tokenizer/byte-tokenizer-json.js";
export { tokenId } from "./tokenizer/token-names.js";
export { TextStream } from "./tokenizer/text-stream.js";
export { stepsOfDocuments, type DocumentsEndOptions } from "./data/documents-end.js";
export { shuffledDocument } from "./data/document-order.js";
export { SegmentCutter, type SegmentCutterOptions, type ShardSegment, type StepSegments } from "./data/segment-cutter.js";
