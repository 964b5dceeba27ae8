import { evaluationKind, type EvaluationKind, type EvaluationSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kinds/kind.js";
import { queuedEffectiveRemembrance } from "./kinds/effective-remembrance.js";
import { queuedLossByPosition } from "./kinds/loss-by-position.js";
import { queuedPasskey } from "./kinds/passkey.js";
import { queuedStateStatistics } from "./kinds/state-statistics.js";

type Settings<K extends EvaluationKind> = NonNullable<EvaluationSpec[K]>;

const KINDS: { readonly [K in EvaluationKind]: (settings: Settings<K>) => QueuedEvaluation } = {
  passkey: queuedPasskey,
  lossByPosition: queuedLossByPosition,
  stateStatistics: queuedStateStatistics,
  effectiveRemembrance: queuedEffectiveRemembrance,
};

/** Pure. */
export function queuedEvaluation(evaluation: EvaluationSpec): QueuedEvaluation {
  return queuedAs(evaluationKind(evaluation), evaluation);
}

function queuedAs<K extends EvaluationKind>(kind: K, evaluation: EvaluationSpec): QueuedEvaluation {
  return KINDS[kind](evaluation[kind] as Settings<K>);
}
