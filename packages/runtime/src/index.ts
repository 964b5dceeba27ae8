export { BlockDigest } from "./block-digest.js";
export { addressSetting, commonSettings, readSettings, settings, wholeNumberSetting } from "./settings.js";
export { createLogger, type Logger } from "./logger.js";
export { fromServiceError, toServiceError } from "./service-error.js";
export {
  hostOf,
  isLoopback,
  requireSafeListener,
  securityFromSettings,
  type Security,
  type SecuritySettings,
  type TlsMaterial,
} from "./security.js";
export type { RateLimit } from "./call-guards.js";
export { startGrpcServer, type GrpcServer, type GrpcServerOptions, type ServiceRegistration } from "./grpc-server.js";
export { connectClient } from "./grpc-client.js";
export { cellJobId, evaluationId, queueNames, redisKeys } from "./redis-keys.js";
export { parseEvaluation, type EvaluationCellRecord, type EvaluationRecord } from "./evaluation-record.js";
export { parseLossRecord, type LossRecord } from "./loss-record.js";
export { parseRemembranceRecord, parseStatesRecord, type RemembranceRecord, type StatesRecord } from "./long-prompt-records.js";
export { numberList, numberOrNull, numberOrZero, objectOrEmpty, parsedJson, textOrEmpty } from "./redis-values.js";
export { mergeAttempts } from "./merge-attempts.js";
export { connectRedis, type RedisRole } from "./redis.js";
export { freePort } from "./free-port.js";
export { startPrivateRedis, type PrivateRedis } from "./private-redis.js";
export { MetricsWriter, type Fields, type MetricsWriterOptions } from "./metrics-writer.js";
export { letHeapGrow } from "./small-heaps.js";
export { announceReady, runService, type ServiceContext } from "./run-service.js";
export { jobSpecInputFromProto, jobSpecToProto } from "./job-spec-proto.js";
export { createCertificates, type Certificates } from "./certificates.js";
export { serveProcessMetrics, type ServiceGauge } from "./process-metrics.js";
export { startMetricsServer, type MetricsServer, type MetricsServerOptions } from "./metrics-server.js";
export { COORDINATOR_POINTS, FAULT_POINTS, parseFaults, WORKER_POINTS, type Fault, type FaultPoint } from "./faults/fault-plan.js";
export { faultPoint, planFaults } from "./faults/fault-points.js";
