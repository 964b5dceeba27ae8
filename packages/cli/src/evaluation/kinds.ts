import type { EvaluationKind } from "@segue/core";
import type { EvaluationKindView } from "./kind.js";
import { lossByPositionKind } from "./loss-by-position-kind.js";
import { passkeyKind } from "./passkey-kind.js";
import { remembranceKind } from "./remembrance-kind.js";
import { statesKind } from "./states-kind.js";

export const KINDS: Readonly<Record<EvaluationKind, EvaluationKindView>> = {
  passkey: passkeyKind,
  lossByPosition: lossByPositionKind,
  stateStatistics: statesKind,
  effectiveRemembrance: remembranceKind,
};

/** The kind that the options ask for; passkeys when they ask for none. */
export function chosenKind(options: object): EvaluationKindView {
  const given = options as Readonly<Record<string, unknown>>;
  return Object.values(KINDS).find(({ option }) => given[option] === true) ?? passkeyKind;
}
