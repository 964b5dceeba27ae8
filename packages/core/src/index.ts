export type * from "./spec/job-spec.js";
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
