export { Evaluator, type EvaluatorOptions } from "./evaluator.js";
export { evaluatePasskeyCell, type PasskeyCell, type PasskeyCellResult } from "./tasks/passkey.js";
export { evaluateLossCell, type LossCell, type LossCellResult } from "./tasks/loss-by-position.js";
export type { Subject } from "./tasks/task.js";
export { PrefixStates } from "./prefix-states.js";
export { evaluateStatesCell, type StatesCell, type StatesCellResult } from "./tasks/state-statistics.js";
export { evaluateRemembranceCell, type RemembranceCell, type RemembranceCellResult } from "./tasks/effective-remembrance.js";
