import type { Device } from "../device.js";
import {
  adamW,
  add,
  addNorm,
  addNormBackward,
  gatherRows,
  headLoss,
  matmul,
  scatterAddRows,
  squaresOfBlocks,
  stateStatistics,
  sumOfBlocks,
  sumOfSquares,
} from "./dense.js";
import { conv, convBackward, gatedNorm, gatedNormBackward, timeSteps, timeStepsBackward } from "./mixer.js";
import { divide, outerStep, subtract } from "./outer.js";
import { laneSums, mixHeads } from "./states.js";
import { scan, scanBackward } from "./scan.js";

/**
 * The specification of every other device: float64, one token after the other, nothing clever. Far too slow for anything but tests and
 * proofs.
 */
export const referenceDevice: Device<Float64Array, Int32Array> = {
  detail: "reference (float64, sequential)",
  isWide: true,
  floats: (length) => new Float64Array(length),
  ints: (length) => new Int32Array(length),
  slice: (of, offset, length) => of.subarray(offset, offset + length),
  upload: (from, to) => to.set(from),
  uploadInts: (from, to) => to.set(from),
  download: (from, to) => to.set(from),
  fill: (floats, value) => void floats.fill(value),
  copy: (from, to) => to.set(from),
  gatherRows,
  scatterAddRows,
  matmul,
  addNorm,
  addNormBackward,
  conv,
  convBackward,
  timeSteps,
  timeStepsBackward,
  scan,
  scanBackward,
  gatedNorm,
  gatedNormBackward,
  headLoss,
  add,
  sumOfSquares,
  squaresOfBlocks,
  sumOfBlocks,
  adamW,
  subtract,
  divide,
  outerStep,
  stateStatistics,
  laneSums,
  mixHeads,
  close: () => undefined,
};
