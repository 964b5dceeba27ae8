import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { storedJobSpec } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { writeFileAtomically } from "../store/atomic-file.js";
import type { StoreFence } from "../store/fence.js";
import { freeBytes, isOutOfSpace, retryDelayMs, storeFull } from "../store/storage-trouble.js";
import type { JobRecord } from "./job-record.js";

/** The job records on disk. */
export class JobStore {
  readonly #root: string;
  readonly #fence: StoreFence;
  readonly #logger: Logger;
  readonly #writes = new Map<string, Promise<void>>();
  /** Records that are not on disk yet. */
  readonly #newest = new Map<string, JobRecord>();
  readonly #closing = new AbortController();
  #isRetrying = false;

  constructor(store: string, fence: StoreFence, logger: Logger) {
    this.#fence = fence;
    this.#root = join(store, "jobs");
    this.#logger = logger;
  }

  folder(jobId: string): string {
    return join(this.#root, jobId);
  }

  /**
   * All jobs, oldest first. A folder without a readable and valid job.json is passed over with a warning.
   * @throws errors of the file system when the store itself cannot be read
   */
  async loadAll(): Promise<JobRecord[]> {
    const names = await readdir(this.#root).catch((error: NodeJS.ErrnoException): string[] => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const records: JobRecord[] = [];
    for (const name of names) {
      try {
        const record = JSON.parse(await readFile(join(this.#root, name, "job.json"), "utf8")) as JobRecord;
        const submittedSpec = record.submittedSpec && storedJobSpec(record.submittedSpec);
        records.push({ ...record, spec: storedJobSpec(record.spec), ...(submittedSpec && { submittedSpec }) });
      } catch (error) {
        this.#logger.warn({ event: "jobUnreadable", folder: name, err: error }, "a job folder without a readable job.json");
      }
    }
    return records.sort((a, b) => a.submittedAtMs - b.submittedAtMs || (a.jobId < b.jobId ? -1 : 1));
  }

  /**
   * Durable when it resolves; writes of one job happen in the order of the calls.
   * @throws SegueError STORE_FULL, STORE_LOCKED; errors of the file system
   */
  save(record: JobRecord): Promise<void> {
    const path = join(this.folder(record.jobId), "job.json");
    const text = `${JSON.stringify(record, null, 2)}\n`;
    const earlier = this.#writes.get(record.jobId) ?? Promise.resolve();
    const write = earlier
      .catch(() => undefined)
      .then(async () => {
        try {
          await this.#fence.verify();
          await writeFileAtomically(path, text);
        } catch (error) {
          throw isOutOfSpace(error) ? storeFull(path, await freeBytes(this.#root), error) : error;
        }
      });
    this.#writes.set(record.jobId, write);
    return write;
  }

  /**
   * Like save, but when the disk refuses, training does not stop for it: the newest record of the job is tried again, after growing
   * pauses, until it is written. Until then a coordinator that starts anew finds the record before it, which only costs time.
   */
  async saveEventually(record: JobRecord): Promise<void> {
    const { jobId } = record;
    this.#newest.set(jobId, record);
    try {
      await this.save(record);
      if (this.#newest.get(jobId) === record) this.#newest.delete(jobId);
    } catch (error) {
      this.#logger.warn({ event: "jobNotSaved", jobId, err: error }, "job.json could not be written; it is tried again");
      if (!this.#isRetrying) void this.#retry();
    }
  }

  /** Gives up what is not written yet. */
  close(): void {
    this.#closing.abort();
  }

  async #retry(): Promise<void> {
    const { signal } = this.#closing;
    this.#isRetrying = true;
    for (let failures = 1; this.#newest.size > 0 && !signal.aborted; failures++) {
      await sleep(retryDelayMs(failures), undefined, { signal, ref: false }).catch(() => undefined);
      for (const record of [...this.#newest.values()]) {
        const isSaved = await this.save(record).then(
          () => true,
          () => false,
        );
        if (isSaved && this.#newest.get(record.jobId) === record) this.#newest.delete(record.jobId);
      }
    }
    this.#isRetrying = false;
  }
}
