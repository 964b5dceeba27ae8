import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { reportFiles, type Report } from "@segue/report";

/**
 * Writes a report into a folder, which is made where it is missing: `report.html`, `report.json` and `figures/`. Files of an earlier report
 * there are replaced.
 * @returns how many figures there are, and the page to open
 * @throws SegueError REPORT_INVALID
 */
export async function writeReport(dir: string, report: Report, signal?: AbortSignal): Promise<{ page: string; figures: number }> {
  let figures = 0;
  let page = dir;
  for await (const { path, content } of reportFiles(report)) {
    signal?.throwIfAborted();
    const file = join(dir, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
    if (path.endsWith(".svg")) figures++;
    if (path.endsWith(".html")) page = file;
  }
  return { page, figures };
}
