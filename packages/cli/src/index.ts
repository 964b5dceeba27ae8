export { LocalCluster, startLocalCluster, type LocalClusterOptions, type ServiceCrash } from "./cluster/local-cluster.js";
export { startFaultyLink, type FaultyLink } from "./cluster/faulty-link.js";
export { ServiceProcess, type ServiceExit, type ServiceKind, type ServiceOptions } from "./cluster/service-process.js";
export { runChaos, type ChaosOptions, type ChaosResult } from "./chaos/run-chaos.js";
export { runCli } from "./program.js";
export type { CliRuntime, TextSink } from "./runtime.js";
export { EXIT } from "./failure.js";
export {
  heatMapOf,
  readEvaluation,
  waitForEvaluation,
  type EvaluationCell,
  type EvaluationResult,
} from "./evaluation/read-evaluation.js";
export { meanAccuracy, renderHeatMap, type HeatMap } from "./show/heat-map.js";
