import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { syncFile, syncFolder } from "../store/atomic-file.js";
import { retryDelayMs } from "../store/storage-trouble.js";
import { verifyFile } from "./load-checkpoint.js";
import {
  checkpointFolderName,
  MANIFEST,
  parseManifest,
  stepOfFolderName,
  type Manifest,
  type StoredCheckpoint,
} from "./manifest.js";
import type { ObjectStore } from "./object-store.js";

export interface MirrorOptions {
  readonly objects: ObjectStore;
  readonly logger: Logger;
  /** Told when copies of a job's checkpoints fail, with the reason, and with "" when they succeed again. */
  readonly onTrouble: (jobId: string, reason: string) => void;
}

/**
 * Copies of checkpoints in an object store, under `<job id>/step-<step>/`. The manifest is uploaded last: without it a copy does not
 * exist. Copies are made in the background, one at a time, newest first, until they succeed.
 */
export class CheckpointMirror {
  readonly #objects: ObjectStore;
  readonly #logger: Logger;
  readonly #onTrouble: MirrorOptions["onTrouble"];
  /** What is known to be in the object store, by job and step. */
  readonly #copies = new Map<string, Map<number, Manifest>>();
  /** To be copied. */
  readonly #waiting = new Map<string, StoredCheckpoint>();
  readonly #closing = new AbortController();
  #copying: { readonly folder: string } | undefined;
  #work: Promise<void> | undefined;
  #failures = 0;

  constructor({ objects, logger, onTrouble }: MirrorOptions) {
    this.#objects = objects;
    this.#logger = logger;
    this.#onTrouble = onTrouble;
  }

  get url(): string {
    return this.#objects.url;
  }

  /** Learns what is in the object store. Copies that cannot be read are passed over with a warning. @throws errors of the object store */
  async open(): Promise<void> {
    await this.#objects.removeUnfinished();
    for (const key of await this.#objects.list()) {
      const [jobId = "", folder = "", name] = key.split("/");
      const step = stepOfFolderName(folder);
      if (step === undefined || name !== MANIFEST) continue;
      try {
        const json = await this.#objects.read(key);
        if (!json) continue;
        const manifest = parseManifest(Buffer.from(json).toString("utf8"), `${this.url}/${jobId}/${folder}`);
        if (manifest.jobId === jobId && manifest.step === step) this.#copiesOf(jobId).set(step, manifest);
      } catch (error) {
        if (!(error instanceof SegueError)) throw error;
        this.#logger.warn({ event: "checkpointDamaged", jobId, step, err: error }, "a damaged copy of a checkpoint is passed over");
      }
    }
  }

  get jobIds(): readonly string[] {
    return [...this.#copies].flatMap(([jobId, copies]) => (copies.size > 0 ? [jobId] : []));
  }

  /** By step. */
  manifests(jobId: string): ReadonlyMap<number, Manifest> {
    return this.#copiesOf(jobId);
  }

  /** Copies a checkpoint unless the object store has it. */
  enqueue(checkpoint: StoredCheckpoint): void {
    const { jobId, step, digest } = checkpoint.manifest;
    if (this.#copiesOf(jobId).get(step)?.digest === digest) return;
    this.#waiting.set(checkpoint.folder, checkpoint);
    this.#work ??= this.#copyAll().finally(() => (this.#work = undefined));
  }

  /** Whether the files of a folder are needed for a copy that is being made. */
  isCopying(folder: string): boolean {
    return this.#copying?.folder === folder;
  }

  /** The local checkpoint is about to be deleted. */
  withdraw(folder: string): void {
    this.#waiting.delete(folder);
  }

  /**
   * Brings a copy back into a folder, which appears complete and verified.
   * @param parent the job's `checkpoints` folder
   * @throws SegueError CHECKPOINT_DAMAGED; errors of the object store and the file system
   */
  async fetch(jobId: string, step: number, parent: string): Promise<void> {
    const manifest = this.#copiesOf(jobId).get(step);
    if (!manifest) throw new Error(`${this.url} has no checkpoint of ${jobId} at step ${step}`);
    const name = checkpointFolderName(step);
    const temporary = join(parent, `.${name}.${randomUUID()}`);
    await mkdir(temporary, { recursive: true });
    try {
      for (const file of [...Object.keys(manifest.files), MANIFEST]) {
        await this.#objects.download(keyOf(manifest, file), join(temporary, file));
        if (file !== MANIFEST) await verifyFile(temporary, manifest, file);
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

  /** The manifest goes first, so an interrupted removal leaves no half copy behind. */
  async remove(jobId: string, step: number): Promise<void> {
    const manifest = this.#copiesOf(jobId).get(step);
    if (!manifest) return;
    this.#copiesOf(jobId).delete(step);
    await this.#objects.remove([keyOf(manifest, MANIFEST)]);
    await this.#objects.remove(Object.keys(manifest.files).map((file) => keyOf(manifest, file)));
  }

  /** Waits until everything is copied, or trouble or the deadline comes. */
  async settle(deadlineMs: number): Promise<void> {
    const end = performance.now() + deadlineMs;
    while (this.#work && this.#failures === 0 && performance.now() < end) await Promise.race([this.#work, sleep(100)]);
  }

  /** Gives up copies that are under way; the next start makes them. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#work;
    this.#objects.close();
  }

  async #copyAll(): Promise<void> {
    const { signal } = this.#closing;
    for (let next = this.#newest(); next && !signal.aborted; next = this.#newest()) {
      const { jobId, step } = next.manifest;
      this.#copying = next;
      try {
        await this.#copy(next, signal);
        this.#waiting.delete(next.folder);
        this.#failures = 0;
        this.#onTrouble(jobId, "");
        this.#logger.info({ event: "checkpointCopied", jobId, step, url: this.url }, "a checkpoint is copied");
      } catch (error) {
        if (signal.aborted) return;
        if (isHopeless(error)) this.#waiting.delete(next.folder);
        const waitMs = retryDelayMs(++this.#failures);
        const reason = error instanceof Error ? error.message || error.name : String(error);
        this.#onTrouble(jobId, `the checkpoint of step ${step} could not be copied to ${this.url}: ${reason}`);
        this.#logger.warn(
          { event: "checkpointNotCopied", jobId, step, url: this.url, waitMs, err: error },
          "a checkpoint is not copied",
        );
        this.#copying = undefined;
        await sleep(waitMs, undefined, { signal }).catch(() => undefined);
      } finally {
        this.#copying = undefined;
      }
    }
  }

  #newest(): StoredCheckpoint | undefined {
    return [...this.#waiting.values()].sort((a, b) => b.manifest.createdAtMs - a.manifest.createdAtMs)[0];
  }

  async #copy({ folder, manifest }: StoredCheckpoint, signal: AbortSignal): Promise<void> {
    const { jobId, step, files } = manifest;
    // One of the same step but another digest is replaced: until its manifest is there, it must not be taken for whole.
    if (this.#copiesOf(jobId).has(step)) await this.remove(jobId, step);
    for (const [name, record] of Object.entries(files)) {
      await this.#objects.upload(keyOf(manifest, name), join(folder, name), record, signal);
    }
    const path = join(folder, MANIFEST);
    const bytes = await readFile(path);
    const record = { bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") };
    await this.#objects.upload(keyOf(manifest, MANIFEST), path, record, signal);
    this.#copiesOf(jobId).set(step, manifest);
  }

  #copiesOf(jobId: string): Map<number, Manifest> {
    const known = this.#copies.get(jobId) ?? new Map<number, Manifest>();
    this.#copies.set(jobId, known);
    return known;
  }
}

function keyOf({ jobId, step }: Manifest, file: string): string {
  return `${jobId}/${checkpointFolderName(step)}/${file}`;
}

/** The local files are damaged or gone: trying again would not help. */
function isHopeless(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return code === "CHECKPOINT_DAMAGED" || code === "ENOENT";
}
