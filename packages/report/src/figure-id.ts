import type { Report } from "./report.js";

/** A figure's id from names: what may not be in one becomes a hyphen. */
export function figureId(...names: readonly (string | number)[]): string {
  const id = names
    .join("-")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "")
    .slice(0, 100);
  return /^[a-z]/.test(id) ? id : `figure-${id}`.slice(0, 100);
}

/** The same report, its figures' ids made distinct: names that differ may give ids that do not. */
export function withDistinctIds(report: Report): Report {
  const seen = new Set<string>();
  const distinct = (id: string, count = 1): string => {
    const tried = count === 1 ? id : `${id.slice(0, 90)}-${count}`;
    if (seen.has(tried)) return distinct(id, count + 1);
    seen.add(tried);
    return tried;
  };
  const sections = report.sections.map((section) => ({
    ...section,
    blocks: section.blocks.map((block) =>
      block.kind === "figure" ? { ...block, figure: { ...block.figure, id: distinct(block.figure.id) } } : block,
    ),
  }));
  return { ...report, sections };
}
