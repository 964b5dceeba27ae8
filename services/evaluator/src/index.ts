export { Evaluator, type EvaluatorOptions } from "./evaluator.js";
export { evaluatePasskeyCell, type PasskeySubject } from "./passkey.js";
export { evaluateLossCell } from "./loss-by-position.js";
export { PrefixStates } from "./prefix-states.js";
export type { LossCell, LossCellResult, PasskeyCell, PasskeyCellResult } from "./cell.js";
