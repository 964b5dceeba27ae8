import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "@segue/runtime";
import { writeFileAtomically } from "../store/atomic-file.js";
import type { JobRecord } from "./job-record.js";

/** The job records on disk. */
export class JobStore {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #writes = new Map<string, Promise<void>>();

  constructor(store: string, logger: Logger) {
    this.#root = join(store, "jobs");
    this.#logger = logger;
  }

  folder(jobId: string): string {
    return join(this.#root, jobId);
  }

  /** All jobs, oldest first. A folder without a readable job.json is passed over with a warning. */
  async loadAll(): Promise<JobRecord[]> {
    const names = await readdir(this.#root).catch(() => []);
    const records: JobRecord[] = [];
    for (const name of names) {
      try {
        records.push(JSON.parse(await readFile(join(this.#root, name, "job.json"), "utf8")) as JobRecord);
      } catch (error) {
        this.#logger.warn({ event: "jobUnreadable", folder: name, err: error }, "a job folder without a readable job.json");
      }
    }
    return records.sort((a, b) => a.submittedAtMs - b.submittedAtMs || (a.jobId < b.jobId ? -1 : 1));
  }

  /** Durable when it resolves; writes of one job happen in the order of the calls. */
  save(record: JobRecord): Promise<void> {
    const path = join(this.folder(record.jobId), "job.json");
    const text = `${JSON.stringify(record, null, 2)}\n`;
    const earlier = this.#writes.get(record.jobId) ?? Promise.resolve();
    const write = earlier.catch(() => undefined).then(() => writeFileAtomically(path, text));
    this.#writes.set(record.jobId, write);
    return write;
  }
}
