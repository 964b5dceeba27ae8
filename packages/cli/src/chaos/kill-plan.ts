import { randomStream } from "@segue/core";

/** One planned death. */
export interface PlannedKill {
  /** After the death before it, or the start. */
  readonly afterMs: number;
  readonly name: string;
  /** How long the service stays dead. */
  readonly deadMs: number;
}

export interface KillPlanOptions {
  readonly seed: number;
  /** Services that may die. */
  readonly names: readonly string[];
  /** Mean time between deaths; the plan keeps within half and one and a half of it. */
  readonly everyMs: number;
}

/** A service may stay dead for as long as it takes to notice that it is, or come back before. */
const MAX_DEAD_MS = 4_000;

/** The n-th death: a function of seed and number, so that a run can be repeated. */
export function plannedKill({ seed, names, everyMs }: KillPlanOptions, number: number): PlannedKill {
  const random = randomStream(seed, "chaos", number);
  return {
    afterMs: Math.round(everyMs * (0.5 + random.uniform())),
    name: names[random.below(names.length)]!,
    deadMs: Math.round(MAX_DEAD_MS * random.uniform()),
  };
}
