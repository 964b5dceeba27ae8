import { basename } from "node:path";
import { cureKey } from "@segue/core";
import { figureId, readStates, stateFigures, type ReportBlock, type ReportSection } from "@segue/report";
import type { RemembranceRecord } from "@segue/runtime";
import { formatCount } from "../show/format.js";
import { byName } from "./findings.js";

/** A packed trace of states and where it comes from. */
export interface NamedTrace {
  /** Empty: the only one. */
  readonly name: string;
  readonly file: Uint8Array;
  readonly trainTokens: number | undefined;
}

/** The file that --states names. */
export function traceOf(path: string, file: Uint8Array, trainTokens: number | undefined): NamedTrace {
  return { name: basename(path).replace(/\.safetensors$/, ""), file, trainTokens };
}

/** @throws SegueError STATES_INVALID, SAFETENSORS_INVALID */
export function statesSection(traces: readonly NamedTrace[]): ReportSection[] {
  const blocks = traces.flatMap(({ name, file, trainTokens }): ReportBlock[] =>
    stateFigures(readStates(file), name, trainTokens).map((figure) => ({ kind: "figure", figure })),
  );
  return blocks.length === 0 ? [] : [{ title: "State statistics", blocks }];
}

/** Effective remembrance of a checkpoint, all cures in one figure. */
export function remembranceSection(records: readonly RemembranceRecord[], step: number): ReportSection[] {
  const known = records.filter((record) => record.step === step && record.distances.length > 0);
  const blocks = byName(known).map(({ name, records: cured }): ReportBlock => {
    const { tokens = 0, prompts = 0 } = cured[0] ?? {};
    return {
      kind: "figure",
      figure: {
        kind: "remembrance",
        id: figureId("remembrance", name),
        title: `Effective remembrance: ${name}`,
        caption:
          `How far the prediction after ${formatCount(tokens)} tokens moves when the first are left out, the mean over ${formatCount(prompts)} prompts. ` +
          "Near 1 at once: the first tokens decide it, which a model that forgets well does not let them.",
        curves: cured.map(({ cure, starts, distances }) => ({
          name: cureKey(cure),
          points: starts.map((start, index) => ({ start, distance: distances[index] ?? null })),
        })),
      },
    };
  });
  return blocks.length === 0 ? [] : [{ title: "Effective remembrance", blocks }];
}
