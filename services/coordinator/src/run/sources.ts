import { optimizerSlice, type Ledger } from "@segue/core";

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

export interface MomentSource {
  readonly begin: number;
  readonly end: number;
  readonly address: string;
}

/**
 * Where the moments of the ledger's step lie under sync.optimizer sharded: slice by slice with a holder of each, else all of them in a
 * checkpoint. Empty slices are left out.
 * @param addressOf of a holder that is still to be had
 * @param checkpoint address of who serves checkpoints
 */
export function momentSources(
  { slices }: Pick<Ledger, "slices">,
  parameters: number,
  addressOf: (workerId: string) => string | undefined,
  checkpoint: string,
): MomentSource[] {
  if (!slices) return [];
  const sources = slices.map((holders, index) => {
    return { ...optimizerSlice(index, slices.length, parameters), addresses: holders.flatMap((id) => addressOf(id) ?? []) };
  });
  const needed = sources.filter(({ begin, end }) => end > begin);
  const isHeld = needed.length > 0 && needed.every(({ addresses }) => addresses.length > 0);
  if (!isHeld) return [{ begin: 0, end: parameters, address: checkpoint }];
  return needed.map(({ begin, end, addresses }) => ({ begin, end, address: addresses[0]! }));
}
