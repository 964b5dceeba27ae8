import type { JobSpec } from "@segue/core";

/** What of a worker decides the bits that it computes. */
export interface Computing {
  /** Engines that load there, best first. */
  readonly engines: readonly string[];
  /** Name of its GPU; absent without one. */
  readonly gpu?: string | undefined;
}

/** What all members of a generation have in common, since only then their bits agree. */
export interface Kind {
  readonly engine: string;
  /** Name of the GPU; empty for engines that use none. */
  readonly gpu: string;
}

/** The engine that a job uses on a worker, the one it asks for or the worker's best, and the GPU under it. */
export function kindOn({ engines, gpu }: Computing, wanted: JobSpec["train"]["engine"]): Kind | undefined {
  const engine = wanted === "auto" ? engines[0] : engines.find((name) => name === wanted);
  if (engine === undefined) return undefined;
  return { engine, gpu: engine === "cuda" ? (gpu ?? "") : "" };
}

export function isSameKind(one: Kind, other: Kind): boolean {
  return one.engine === other.engine && one.gpu === other.gpu;
}

/** For people: the GPU, or else the engine. */
export function kindText({ engine, gpu }: Kind): string {
  return gpu || engine;
}

/** Workers by kind, in the order in which the kinds first come; those that have no engine for the job are left out. */
export function byKind<W extends Computing>(
  workers: readonly W[],
  wanted: JobSpec["train"]["engine"],
): { readonly kind: Kind; readonly workers: readonly W[] }[] {
  const groups: { kind: Kind; workers: W[] }[] = [];
  for (const worker of workers) {
    const kind = kindOn(worker, wanted);
    if (!kind) continue;
    const group = groups.find((candidate) => isSameKind(candidate.kind, kind));
    if (group) group.workers.push(worker);
    else groups.push({ kind, workers: [worker] });
  }
  return groups;
}
