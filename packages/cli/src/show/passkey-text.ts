import { recentAccuracy, wilsonInterval, type PasskeyCount, type RecentAccuracy } from "@segue/core";
import type { EvaluationResult } from "../evaluation/read-evaluation.js";
import { heatMapOf } from "../evaluation/read-evaluation.js";
import { cureText, formatCount } from "./format.js";
import { intervalText, lengthLabel, renderHeatMap } from "./heat-map.js";
import { renderTable, type Column } from "./table.js";

/** A passkey evaluation for people: a title, the heat map with intervals, and the accuracy on keys near the end. */
export function passkeyText(result: EvaluationResult, colour: boolean): string {
  const state = result.carryState ? "state carried" : "state zeroed at every segment boundary";
  const mean = result.accuracy === null ? "" : `, mean ${(100 * result.accuracy).toFixed(1)} %`;
  const map = { ...heatMapOf(result), interval: intervalsOf(result.cells) };
  return [
    `passkey accuracy of step ${formatCount(result.step)}, ${state}${cureText(result.cure)}${mean} (with 95 % intervals)`,
    renderHeatMap(map, { colour }),
    ...recentText(recentAccuracy(result.cells)),
  ].join("\n");
}

function intervalsOf(cells: readonly PasskeyCount[]) {
  const intervals = new Map(
    cells
      .filter(({ samples }) => samples > 0)
      .map(({ length, depth, correct, samples }) => [`${length}:${depth}`, wilsonInterval(correct, samples)]),
  );
  return (length: number, depth: number) => intervals.get(`${length}:${depth}`);
}

function recentText(recent: readonly RecentAccuracy[]): string[] {
  if (recent.length === 0) return [];
  const lengths = [...new Set(recent.map(({ length }) => length))];
  const rows = [...new Set(recent.map(({ lastTokens }) => lastTokens))];
  const columns: Column<number>[] = [
    { title: "keys in the last", value: lengthLabel },
    ...lengths.map((length): Column<number> => {
      const found = (tokens: number) => recent.find((entry) => entry.lastTokens === tokens && entry.length === length);
      return { title: lengthLabel(length), value: (tokens) => shareText(found(tokens)), right: true };
    }),
  ];
  return ["", renderTable(columns, rows)];
}

function shareText(recent: RecentAccuracy | undefined): string {
  return recent ? `${Math.round(100 * recent.accuracy)} % ${intervalText(recent.interval)}` : "-";
}
