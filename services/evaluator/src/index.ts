export { Evaluator, type EvaluatorOptions } from "./evaluator.js";
export { evaluatePasskeyCell, type PasskeySubject } from "./passkey.js";
export type { PasskeyCell, PasskeyCellResult } from "./cell.js";
