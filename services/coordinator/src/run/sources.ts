import type { Ledger } from "@segue/core";

/** Enough to share the work, few enough that a Join is encoded a few times only, whatever the number of members. */
const MOST_SOURCES = 8;

/**
 * The holders of the committed step that members pull it from: those who lack it take turns, so that they do not all pull from one.
 * @param isThere whether a holder is still to be had
 * @returns members by the holder they pull from; undefined: there is none
 */
export function membersBySource(
  { members, holders }: Pick<Ledger, "members" | "holders">,
  isThere: (workerId: string) => boolean,
): ReadonlyMap<string | undefined, readonly string[]> {
  const sources = holders.filter(isThere).slice(0, MOST_SOURCES);
  const held = new Set(holders);
  const bySource = new Map<string | undefined, string[]>();
  let turn = 0;
  for (const { workerId } of members) {
    const source = held.has(workerId) ? sources[0] : sources[turn++ % Math.max(1, sources.length)];
    const pullers = bySource.get(source);
    if (pullers) pullers.push(workerId);
    else bySource.set(source, [workerId]);
  }
  return bySource;
}
