import { mkdir, open, readdir, readFile, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import {
  recordedChange,
  type EventLogContent,
  type EventLogEntry,
  type JobSpec,
  type Ledger,
  type LedgerEvent,
  type SettingChange,
} from "@segue/core";
import type { Logger } from "@segue/runtime";
import type { StoreFence } from "../store/fence.js";

export interface EventLogOptions {
  /** `<store>/jobs/<id>` */
  readonly jobFolder: string;
  readonly fence: StoreFence;
  readonly logger: Logger;
  /** From which size on the next commit starts a new file. */
  readonly fileBytes?: number;
  /** Oldest files are deleted beyond it. */
  readonly totalBytes?: number;
}

const FILE_BYTES = 4 * 2 ** 20;
const TOTAL_BYTES = 64 * 2 ** 20;
/** Entries that wait while the store does not take them; more would fill the memory of a coordinator whose disk is full. */
const MAX_WAITING = 10_000;
/** Happen all the time and mean nothing by themselves: they wait for the commit (or the end) of their round. */
const UNHURRIED: ReadonlySet<LedgerEvent["type"]> = new Set(["memberReady", "roundStarted", "roundReported"]);

interface Opening {
  readonly spec: JobSpec;
  readonly ledger: Ledger;
}

type Unnumbered = { readonly atMs: number } & EventLogContent;

function isCommit(entry: Unnumbered): boolean {
  return entry.kind === "round" || (entry.kind === "event" && entry.event.type === "roundCommitted");
}

/**
 * The events of one job on disk, append-only: `events/<number of the first entry>.jsonl`, one JSON line each. Written in the background,
 * flushed to the disk at commits. Training never waits for it and goes on without it; then a new file says that entries are missing.
 */
export class EventLog {
  readonly #options: EventLogOptions;
  #waiting: Unnumbered[] = [];
  /** What a new file begins with. */
  #opening: Opening | undefined;
  #file: FileHandle | undefined;
  #fileBytes = 0;
  /** Of the next entry; undefined until the folder was read. */
  #nextSeq: number | undefined;
  #lost = 0;
  #writing: Promise<void> = Promise.resolve();
  #flushQueued = false;

  constructor(options: EventLogOptions) {
    this.#options = options;
  }

  /** Training starts, on this coordinator, from a fresh ledger. */
  opened(spec: JobSpec, ledger: Ledger): void {
    this.#opening = { spec, ledger };
    this.#push({ kind: "opened", cause: "start", spec, ledger });
  }

  /** An event that led from the ledger `before` to `after`. */
  record(event: LedgerEvent, before: Ledger, after: Ledger): void {
    const { replaces, content } = recordedChange(this.#waiting.slice(-2), event, before, after);
    if (!content) return;
    this.#waiting.splice(this.#waiting.length - replaces);
    this.#push(content);
    if (this.#opening) this.#opening = { ...this.#opening, ledger: after };
    if (!UNHURRIED.has(event.type)) void this.flush();
  }

  specChanged(changes: Readonly<Record<string, SettingChange>>): void {
    this.#push({ kind: "specChanged", changes });
  }

  /** @param code of what is not there; absent: on request */
  paused(reason: string, code?: string): void {
    this.#push({ kind: "paused", reason, ...(code === undefined ? {} : { code }) });
  }

  /** Writes what waits. Resolves when it is on the disk or given up; never rejects. */
  flush(): Promise<void> {
    if (!this.#flushQueued) {
      this.#flushQueued = true;
      this.#writing = this.#writing.then(async () => {
        this.#flushQueued = false;
        await this.#write();
      });
    }
    return this.#writing;
  }

  /** Writes what waits and lets go of the file. */
  async close(): Promise<void> {
    await this.flush();
    await this.#closeFile();
  }

  #push(content: EventLogContent): void {
    this.#waiting.push({ atMs: Date.now(), ...content });
    if (this.#waiting.length > MAX_WAITING) {
      this.#lost += this.#waiting.length;
      this.#waiting = [];
    }
  }

  async #write(): Promise<void> {
    const entries = this.#waiting;
    if (entries.length === 0) return;
    const opening = this.#opening;
    this.#waiting = [];
    try {
      await this.#options.fence.verify();
      this.#nextSeq ??= await this.#readNextSeq();
      if (this.#lost > 0) {
        await this.#beginAfterGap(entries.length, opening);
        return;
      }
      await this.#append(entries);
      if (entries.some(isCommit) && this.#fileBytes >= (this.#options.fileBytes ?? FILE_BYTES)) await this.#rotate(opening);
    } catch (error) {
      this.#lost += entries.length;
      await this.#closeFile();
      this.#options.logger.warn({ event: "eventLogFailed", lost: entries.length, err: error }, "events could not be recorded");
    }
  }

  async #append(entries: readonly Unnumbered[], skippedSeqs = 0): Promise<void> {
    const firstSeq = (this.#nextSeq ?? 1) + skippedSeqs;
    const numbered = entries.map((entry, index): EventLogEntry => ({ seq: firstSeq + index, ...entry }));
    const text = numbered.map((entry) => `${JSON.stringify(entry)}\n`).join("");
    this.#file ??= await this.#create(firstSeq);
    try {
      await this.#file.appendFile(text);
      await this.#file.datasync();
    } catch (error) {
      // A disk that is full has room for a name, not for a line; the next attempt has another number.
      if (this.#fileBytes === 0) await rm(this.#path(firstSeq), { force: true });
      throw error;
    }
    this.#fileBytes += Buffer.byteLength(text);
    this.#nextSeq = firstSeq + entries.length;
  }

  async #rotate(opening: Opening | undefined): Promise<void> {
    if (!opening) return;
    await this.#closeFile();
    await this.#append([{ atMs: Date.now(), kind: "opened", cause: "rotation", ...opening }]);
    await this.#deleteOldest();
  }

  /** The present entries are part of the gap: the ledger that the new file begins with has seen them. */
  async #beginAfterGap(entries: number, opening: Opening | undefined): Promise<void> {
    if (!opening) throw new Error("entries are missing and no ledger is known to go on from");
    await this.#append([{ atMs: Date.now(), kind: "opened", cause: "gap", ...opening }], this.#lost + entries);
    this.#lost = 0;
  }

  get #folder(): string {
    return join(this.#options.jobFolder, "events");
  }

  async #create(firstSeq: number): Promise<FileHandle> {
    await mkdir(this.#folder, { recursive: true });
    this.#fileBytes = 0;
    return open(this.#path(firstSeq), "ax");
  }

  #path(firstSeq: number): string {
    return join(this.#folder, `${String(firstSeq).padStart(10, "0")}.jsonl`);
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => undefined);
  }

  async #files(): Promise<string[]> {
    const names = await readdir(this.#folder).catch(() => []);
    return names.filter((name) => /^\d{10,}\.jsonl$/.test(name)).sort();
  }

  /**
   * The numbers of a file's entries follow each other; what a killed writer left of its last line does not count. Files without any entry
   * are removed.
   */
  async #readNextSeq(): Promise<number> {
    let next = 1;
    for (const name of (await this.#files()).reverse()) {
      const path = join(this.#folder, name);
      const lines = (await readFile(path, "utf8")).split("\n").length - 1;
      next = Math.max(next, Number.parseInt(name, 10) + lines);
      if (lines > 0) break;
      await rm(path);
    }
    return next;
  }

  async #deleteOldest(): Promise<void> {
    const files = await this.#files();
    const sizes = await Promise.all(files.map(async (name) => (await stat(join(this.#folder, name))).size));
    let total = sizes.reduce((sum, size) => sum + size, 0);
    for (const [index, name] of files.slice(0, -1).entries()) {
      if (total <= (this.#options.totalBytes ?? TOTAL_BYTES)) return;
      await rm(join(this.#folder, name), { force: true });
      total -= sizes[index] ?? 0;
    }
  }
}
