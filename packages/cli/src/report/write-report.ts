import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { figuresOf, reportFiles, type Report } from "@segue/report";

/**
 * Writes a report into a folder, which is made where it is missing: `report.html`, `report.json` and `figures/`. An earlier report
 * there is replaced; of its figures none stays, of other files all do.
 * @returns how many figures there are, and the page to open
 * @throws SegueError REPORT_INVALID
 */
export async function writeReport(dir: string, report: Report, signal?: AbortSignal): Promise<{ page: string; figures: number }> {
  let figures = 0;
  let page = dir;
  await removeFiguresOfEarlier(dir);
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

async function removeFiguresOfEarlier(dir: string): Promise<void> {
  let names: readonly string[];
  try {
    const earlier = JSON.parse(await readFile(join(dir, "report.json"), "utf8")) as Report;
    names = figuresOf(earlier).flatMap(({ id }) => ["svg", "png", "csv", "json"].map((type) => `${id}.${type}`));
  } catch {
    // There is none, or it is no report.
    return;
  }
  const own = new Set(names);
  const there = await readdir(join(dir, "figures")).catch(() => []);
  await Promise.all(there.filter((name) => own.has(name)).map((name) => rm(join(dir, "figures", name), { force: true })));
}
