export { startCoordinator, type Coordinator, type CoordinatorOptions } from "./coordinator.js";
export type { CutShard, CutStep, DataSource, StepCutter } from "./feed/step-cutter.js";
