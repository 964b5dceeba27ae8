import type { Curve } from "../chart/curve-chart.js";
import { finite, type DataTable } from "../data-table.js";
import type { Course } from "../figure.js";

export function courseCurves(tokens: readonly number[], courses: readonly Course[]): Curve[] {
  return courses.map(({ name, values }) => ({ name, points: tokens.map((x, index) => ({ x, y: values[index] ?? null })) }));
}

/** One row for each head and place, one column for each quantity. */
export function courseTable(tokens: readonly number[], quantities: Readonly<Record<string, readonly Course[]>>): DataTable {
  const lists = Object.values(quantities);
  const names = [...new Set(lists.flatMap((courses) => courses.map(({ name }) => name)))];
  const rows = names.flatMap((name) => {
    const found = lists.map((courses) => courses.find((course) => course.name === name));
    return tokens.map((token, index) => [name, token, ...found.map((course) => finite(course?.values[index]))]);
  });
  return { columns: ["name", "tokens", ...Object.keys(quantities)], rows };
}
