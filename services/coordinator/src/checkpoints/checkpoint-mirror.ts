import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { syncFile, syncFolder } from "../store/atomic-file.js";
import { retryDelayMs } from "../store/storage-trouble.js";
import { bucketAway } from "./checkpoint-trouble.js";
import { copyKey, readCopies, type Copy } from "./copies.js";
import { verifyFile } from "./load-checkpoint.js";
import { checkpointFolderName, MANIFEST, type Manifest, type StoredCheckpoint } from "./manifest.js";
import type { ObjectStore } from "./object-store.js";

export interface MirrorOptions {
  readonly objects: ObjectStore;
  readonly logger: Logger;
  /** Told what of a job's checkpoints is not in the object store and why, and "" when all is. */
  readonly onTrouble: (jobId: string, reason: string) => void;
}

/** What the object store does in the background may go on for so long after `close`. */
const CLOSE_MS = 2_000;

/**
 * Copies of checkpoints in an object store, under `<job id>/step-<step>/`. The manifest is uploaded last: without it a copy does not
 * exist. One that lacks a file, or has it in another size, is damaged: it is repaired from the local checkpoint where there is one. What
 * changes the object store is done in the background, one thing at a time, until it succeeds: nobody waits for it.
 */
export class CheckpointMirror {
  readonly #objects: ObjectStore;
  readonly #logger: Logger;
  readonly #onTrouble: MirrorOptions["onTrouble"];
  /** What is known to be in the object store, by job and step. */
  readonly #copies = new Map<string, Map<number, Copy>>();
  /** To be copied, by folder. */
  readonly #waiting = new Map<string, StoredCheckpoint>();
  /** To be removed from the object store, by key of the manifest. */
  readonly #unwanted = new Map<string, Manifest>();
  readonly #closing = new AbortController();
  #isOpen = false;
  #copying: { readonly folder: string } | undefined;
  #work: Promise<void> | undefined;
  #failures = 0;
  #reason = "";

  constructor({ objects, logger, onTrouble }: MirrorOptions) {
    this.#objects = objects;
    this.#logger = logger;
    this.#onTrouble = onTrouble;
  }

  get url(): string {
    return this.#objects.url;
  }

  /**
   * Learns what is in the object store and compares it with the manifests, file by file. When it fails, it is tried again before the first
   * copy is made. @throws errors of the object store
   */
  async open(): Promise<void> {
    await this.#objects.removeUnfinished();
    for (const copy of await readCopies(this.#objects, this.#logger)) {
      const { jobId, step } = copy.manifest;
      this.#copiesOf(jobId).set(step, copy);
    }
    this.#isOpen = true;
  }

  /**
   * Asks again what the object store has of a job that has nothing in flight here.
   * @throws SegueError CHECKPOINTS_UNREACHABLE
   */
  async learn(jobId: string): Promise<void> {
    try {
      for (const copy of await readCopies(this.#objects, this.#logger, jobId)) this.#setCopy(copy);
    } catch (cause) {
      throw bucketAway(this.url, `could not be listed: ${wordsOf(cause)}`, cause);
    }
  }

  get jobIds(): readonly string[] {
    return [...this.#copies].flatMap(([jobId, copies]) => (copies.size > 0 ? [jobId] : []));
  }

  /** By step; of damaged copies as well. */
  manifests(jobId: string): ReadonlyMap<number, Manifest> {
    return new Map([...this.#copiesOf(jobId)].map(([step, { manifest }]) => [step, manifest]));
  }

  /** What is wrong with a copy, in words; undefined when nothing is, as far as is known, or there is none. */
  damageOf(jobId: string, step: number): string | undefined {
    const missing = this.#copiesOf(jobId).get(step)?.missing ?? [];
    return missing.length === 0 ? undefined : `the copy of step ${step} in ${this.url} lacks ${missing.join(", ")}`;
  }

  /** What of a job's checkpoints is not in the object store, and why; empty when all is. */
  troubleOf(jobId: string): string {
    const steps = [...this.#waiting.values()].flatMap(({ manifest }) => (manifest.jobId === jobId ? [manifest.step] : []));
    const [newest, ...others] = steps.sort((a, b) => b - a);
    const texts: string[] = [];
    if (newest !== undefined && this.#reason !== "") {
      const more = others.length === 0 ? "" : `; nor those of ${others.join(", ")}`;
      texts.push(`the checkpoint of step ${newest} could not be copied to ${this.url}: ${this.#reason}${more}`);
    }
    for (const step of this.#copiesOf(jobId).keys()) {
      const damage = steps.includes(step) ? undefined : this.damageOf(jobId, step);
      if (damage !== undefined) texts.push(`${damage}, and this machine has no checkpoint to repair it from`);
    }
    return texts.join("; ");
  }

  /** Copies a checkpoint unless the object store has a whole copy of it. */
  enqueue(checkpoint: StoredCheckpoint): void {
    if (this.#hasCopyOf(checkpoint)) return;
    this.#waiting.set(checkpoint.folder, checkpoint);
    this.#start();
  }

  /** Whether the files of a folder are needed for a copy that is being made. */
  isCopying(folder: string): boolean {
    return this.#copying?.folder === folder;
  }

  /** The local checkpoint is about to be deleted. */
  withdraw(folder: string): void {
    this.#waiting.delete(folder);
  }

  /** The copy of a checkpoint is not wanted any more: it counts no longer, and is removed in the background. */
  discard(jobId: string, step: number): void {
    const copy = this.#copiesOf(jobId).get(step);
    if (!copy) return;
    this.#copiesOf(jobId).delete(step);
    this.#unwanted.set(copyKey(copy.manifest, MANIFEST), copy.manifest);
    this.#start();
  }

  /**
   * Brings a copy back into a folder, which appears complete and verified. A copy that turns out to be damaged is remembered as such.
   * @param parent the job's `checkpoints` folder
   * @throws SegueError CHECKPOINT_DAMAGED naming the object, CHECKPOINTS_UNREACHABLE; errors of the file system
   */
  async fetch(jobId: string, step: number, parent: string): Promise<void> {
    const copy = this.#copiesOf(jobId).get(step);
    if (!copy) throw new Error(`${this.url} has no checkpoint of ${jobId} at step ${step}`);
    const { manifest } = copy;
    const name = checkpointFolderName(step);
    const temporary = join(parent, `.${name}.${randomUUID()}`);
    await mkdir(temporary, { recursive: true });
    try {
      for (const file of [...Object.keys(manifest.files), MANIFEST]) {
        await this.#fetchFile(copy, file, temporary);
        await syncFile(join(temporary, file));
      }
      await syncFolder(temporary);
      await rm(join(parent, name), { recursive: true, force: true });
      await rename(temporary, join(parent, name));
      await syncFolder(parent);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
  }

  /** Waits until everything is copied, or trouble or the deadline comes. */
  async settle(deadlineMs: number): Promise<void> {
    const end = performance.now() + deadlineMs;
    while (this.#work && this.#failures === 0 && performance.now() < end) await Promise.race([this.#work, sleep(100)]);
  }

  /** Gives up what is under way; the next start does it. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#objects.close();
    // A folder on a volume that hangs cannot be given up; the process ends without it.
    await Promise.race([this.#work, sleep(CLOSE_MS, undefined, { ref: false })]);
  }

  async #fetchFile(copy: Copy, file: string, folder: string): Promise<void> {
    const { manifest } = copy;
    const key = copyKey(manifest, file);
    let isThere: boolean;
    try {
      isThere = await this.#objects.download(key, join(folder, file));
    } catch (cause) {
      throw bucketAway(`${this.url}/${key}`, `could not be fetched: ${wordsOf(cause)}`, cause);
    }
    try {
      if (!isThere) throw new SegueError("CHECKPOINT_DAMAGED", `${this.url}/${key} is missing.`, { status: "DATA_LOSS" });
      if (file !== MANIFEST) await verifyFile(folder, manifest, file);
    } catch (error) {
      if (!(error instanceof SegueError) || file === MANIFEST) throw error;
      this.#setCopy({ manifest, missing: [...new Set([...copy.missing, file])] });
      const message = isThere ? `${this.url}/${key} does not match the manifest.` : error.message;
      throw new SegueError("CHECKPOINT_DAMAGED", message, { status: "DATA_LOSS", cause: error });
    }
  }

  #hasCopyOf({ manifest }: StoredCheckpoint): boolean {
    const copy = this.#copiesOf(manifest.jobId).get(manifest.step);
    return copy?.manifest.digest === manifest.digest && copy.missing.length === 0;
  }

  #start(): void {
    if (this.#closing.signal.aborted) return;
    this.#work ??= this.#run().finally(() => (this.#work = undefined));
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted && this.#waiting.size + this.#unwanted.size > 0) {
      const checkpoint = this.#newest();
      try {
        if (!this.#isOpen) await this.open();
        await (checkpoint ? this.#copyNext(checkpoint) : this.#removeNext());
        this.#failures = 0;
        this.#reason = "";
      } catch (error) {
        if (signal.aborted) return;
        await this.#failed(checkpoint, error);
      } finally {
        this.#copying = undefined;
      }
    }
  }

  async #copyNext(checkpoint: StoredCheckpoint): Promise<void> {
    const { jobId, step } = checkpoint.manifest;
    this.#copying = checkpoint;
    if (!this.#hasCopyOf(checkpoint)) {
      await this.#copy(checkpoint, this.#closing.signal);
      this.#logger.info({ event: "checkpointCopied", jobId, step, url: this.url }, "a checkpoint is copied");
    }
    // Unless the step was written anew meanwhile.
    if (this.#waiting.get(checkpoint.folder) === checkpoint) this.#waiting.delete(checkpoint.folder);
    this.#reason = "";
    this.#onTrouble(jobId, this.troubleOf(jobId));
  }

  async #removeNext(): Promise<void> {
    for (const [key, manifest] of this.#unwanted) {
      await this.#remove(manifest);
      this.#unwanted.delete(key);
      return;
    }
  }

  async #failed(checkpoint: StoredCheckpoint | undefined, error: unknown): Promise<void> {
    const { signal } = this.#closing;
    const waitMs = retryDelayMs(++this.#failures);
    this.#reason = wordsOf(error);
    const jobIds = new Set([...this.#waiting.values()].map(({ manifest }) => manifest.jobId));
    for (const jobId of jobIds) this.#onTrouble(jobId, this.troubleOf(jobId));
    if (checkpoint && isHopeless(error)) this.#waiting.delete(checkpoint.folder);
    const { jobId, step } = checkpoint?.manifest ?? {};
    this.#logger.warn(
      { event: checkpoint ? "checkpointNotCopied" : "copyNotDeleted", jobId, step, url: this.url, waitMs, err: error },
      checkpoint ? "a checkpoint is not copied" : "an old copy stays in the object store for now",
    );
    this.#copying = undefined;
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }

  #newest(): StoredCheckpoint | undefined {
    return [...this.#waiting.values()].sort((a, b) => b.manifest.createdAtMs - a.manifest.createdAtMs)[0];
  }

  async #copy({ folder, manifest }: StoredCheckpoint, signal: AbortSignal): Promise<void> {
    const { jobId, step, files, digest } = manifest;
    const key = copyKey(manifest, MANIFEST);
    const before = this.#unwanted.get(key) ?? this.#copiesOf(jobId).get(step)?.manifest;
    const missing = before?.digest === digest ? this.#copiesOf(jobId).get(step)?.missing : undefined;
    // One of the same step but another digest is replaced: until its manifest is there, it must not be taken for whole.
    if (before && missing === undefined) {
      this.#copiesOf(jobId).delete(step);
      await this.#remove(before);
    }
    this.#unwanted.delete(key);
    for (const [name, record] of Object.entries(files)) {
      if (missing && !missing.includes(name)) continue;
      await this.#objects.upload(copyKey(manifest, name), join(folder, name), record, signal);
    }
    const path = join(folder, MANIFEST);
    const bytes = await readFile(path);
    const record = { bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") };
    await this.#objects.upload(key, path, record, signal);
    this.#setCopy({ manifest, missing: [] });
  }

  /** The manifest goes first, so an interrupted removal leaves no half copy behind. */
  async #remove(manifest: Manifest): Promise<void> {
    await this.#objects.remove([copyKey(manifest, MANIFEST)]);
    await this.#objects.remove(Object.keys(manifest.files).map((file) => copyKey(manifest, file)));
  }

  #setCopy(copy: Copy): void {
    this.#copiesOf(copy.manifest.jobId).set(copy.manifest.step, copy);
  }

  #copiesOf(jobId: string): Map<number, Copy> {
    const known = this.#copies.get(jobId) ?? new Map<number, Copy>();
    this.#copies.set(jobId, known);
    return known;
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}

/** The local files are damaged or gone: trying again would not help. */
function isHopeless(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return code === "CHECKPOINT_DAMAGED" || code === "ENOENT";
}
