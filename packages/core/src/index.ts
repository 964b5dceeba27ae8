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
export { randomStream, type Random } from "./random.js";
