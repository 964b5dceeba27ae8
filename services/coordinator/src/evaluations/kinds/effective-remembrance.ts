import type { EffectiveRemembranceSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kind.js";
import { promptParts } from "./prompt-parts.js";

/** One cell for each few prompts. */
export function queuedEffectiveRemembrance({ prompts, starts, ...settings }: EffectiveRemembranceSpec): QueuedEvaluation {
  const task = "effectiveRemembrance";
  return {
    fields: { kind: task, ...settings, prompts, starts: JSON.stringify(starts) },
    parent: { task },
    cells: promptParts(prompts).map(({ part, ...prompts }) => ({ part, work: { task, ...settings, starts, ...prompts } })),
  };
}
