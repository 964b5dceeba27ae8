import { readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { SegueError, type CheckpointsSpec, type JobSpec } from "@segue/core";
import { ABORTED, untilAborted } from "@segue/protocol";
import type { Logger } from "@segue/runtime";
import type { CheckpointMirror } from "./checkpoint-mirror.js";
import { loadCheckpoint, type LoadedCheckpoint } from "./load-checkpoint.js";
import { bucketAway, checkpointsMissing, checkpointsUnreadable, isBucketAway } from "./checkpoint-trouble.js";
import {
  checkpointFolderName,
  FILES,
  MANIFEST,
  readManifest,
  stepOfFolderName,
  type Manifest,
  type StoredCheckpoint,
} from "./manifest.js";
import { superseded, type CheckpointHealth } from "./retention.js";
import { writeCheckpoint, type CheckpointInput } from "./write-checkpoint.js";

/** The checkpoints of one job: a folder each, and copies in the mirror if there is one, which are brought back when they are needed. */
export class CheckpointStore {
  readonly #jobId: string;
  readonly #parent: string;
  readonly #logger: Logger;
  readonly #mirror: CheckpointMirror | undefined;
  readonly #verified = new Set<number>();
  /** What is wrong with the checkpoint of a step. */
  readonly #damaged = new Map<number, string>();
  /** Why the copy of a step could not be fetched when it was wanted. */
  readonly #away = new Map<number, string>();
  readonly #fetching = new Map<number, Promise<void>>();
  #retaining: Promise<unknown> = Promise.resolve();

  /** @param jobFolder `<store>/jobs/<id>` */
  constructor(jobFolder: string, logger: Logger, mirror?: CheckpointMirror) {
    this.#jobId = basename(jobFolder);
    this.#parent = join(jobFolder, "checkpoints");
    this.#logger = logger;
    this.#mirror = mirror;
  }

  /** Where the checkpoints are; may not exist yet. */
  get parent(): string {
    return this.#parent;
  }

  /** What is wrong with checkpoints, by step. */
  get damaged(): ReadonlyMap<number, string> {
    return this.#damaged;
  }

  /** Why the last {@link loadNewest} did not take newer checkpoints than it did, by step. */
  get passedOver(): ReadonlyMap<number, string> {
    return new Map([...this.#damaged, ...this.#away]);
  }

  folder(step: number): string {
    return join(this.#parent, checkpointFolderName(step));
  }

  /**
   * Newest first, by their manifests; files are not verified. Damaged ones are left out.
   * @throws SegueError CHECKPOINTS_UNREADABLE
   */
  async list(): Promise<StoredCheckpoint[]> {
    const found = new Map<number, StoredCheckpoint>();
    for (const [step, manifest] of this.#copies) found.set(step, { folder: this.folder(step), manifest });
    for (const step of await this.#localSteps()) {
      if (this.#damaged.has(step)) continue;
      const folder = this.folder(step);
      const manifest = await readManifest(folder).catch(() => undefined);
      if (manifest?.step === step) found.set(step, { folder, manifest });
    }
    return [...found.values()].sort((a, b) => b.manifest.step - a.manifest.step);
  }

  /**
   * The newest checkpoint that is whole; undefined when there is none, or all that were written are damaged. A damaged one is passed over
   * with a warning, remembered, and stays where it is until a newer one is written; where the mirror has a copy, the copy takes its place.
   * What cannot be read now is passed over for an older one on this machine, but nothing is begun anew for it.
   * @param written the newest step of which a checkpoint was written, as far as is known; absent: none was
   * @param signal gives up waiting for the mirror, as when it is away
   * @throws SegueError CHECKPOINTS_UNREACHABLE, CHECKPOINTS_UNREADABLE, CHECKPOINTS_MISSING
   */
  async loadNewest(spec: JobSpec, written?: number, signal?: AbortSignal): Promise<LoadedCheckpoint | undefined> {
    this.#damaged.clear();
    this.#away.clear();
    const known = new Set(this.#copies.keys());
    const found = await this.#firstWhole(await this.#steps(), spec, signal);
    if (found.loaded) return found.loaded;
    const wasWritten = written !== undefined || this.#damaged.size > 0 || found.trouble !== undefined;
    if (!wasWritten) return undefined;
    // The mirror may have what it did not tell at the start: it was away, or a volume was not mounted.
    await this.#inTime(this.#mirror?.learn(this.#jobId), signal);
    const learned = [...this.#copies.keys()].filter((step) => !known.has(step));
    const { loaded, trouble = found.trouble } = await this.#firstWhole(learned, spec, signal);
    if (loaded) return loaded;
    if (trouble) throw trouble;
    if (this.#damaged.size === 0) throw checkpointsMissing(written ?? 0, this.#parent, this.#mirror?.url);
    return undefined;
  }

  /** Brings the files of a checkpoint back if only the mirror has them. @returns whether they are here */
  async ensureLocal(step: number): Promise<boolean> {
    if ((await this.#localSteps()).includes(step)) return true;
    if (!this.#copies.has(step)) return false;
    await this.#fetch(step);
    return true;
  }

  async write(input: CheckpointInput): Promise<StoredCheckpoint> {
    const written = await writeCheckpoint(this.#parent, input);
    this.#damaged.delete(input.cursor.step);
    this.#verified.add(input.cursor.step);
    this.#mirror?.enqueue(written);
    return written;
  }

  /**
   * Deletes what the policy does not keep, save what `isNeeded`: here at once, in the mirror in the background. While none is known to be
   * whole, nothing is deleted.
   * @returns the deleted steps
   */
  async retain(policy: Pick<CheckpointsSpec, "keepLast" | "keepEvery">, isNeeded: (step: number) => boolean): Promise<number[]> {
    const retained = this.#retaining.then(() => this.#retain(policy, isNeeded));
    this.#retaining = retained.catch(() => undefined);
    return retained;
  }

  async #retain(policy: Pick<CheckpointsSpec, "keepLast" | "keepEvery">, isNeeded: (step: number) => boolean): Promise<number[]> {
    if (this.#verified.size === 0) return [];
    const steps = await this.#steps();
    const health = await Promise.all(steps.map((step) => this.#health(step)));
    const deleted: number[] = [];
    for (const step of superseded(
      steps.map((step, index) => ({ step, health: health[index] ?? "unknown" })),
      policy,
    )) {
      const folder = this.folder(step);
      if (this.#mirror?.isCopying(folder) || isNeeded(step)) continue;
      this.#mirror?.withdraw(folder);
      // Without its manifest it no longer counts, so an interrupted deletion leaves no half checkpoint behind.
      await rm(join(folder, MANIFEST), { force: true });
      await rm(folder, { recursive: true, force: true });
      this.#damaged.delete(step);
      this.#verified.delete(step);
      deleted.push(step);
      this.#mirror?.discard(this.#jobId, step);
    }
    return deleted;
  }

  /** Removes what an interrupted writer left behind, and lets the mirror copy what it lacks. */
  async tidy(): Promise<void> {
    for (const name of await readdir(this.#parent).catch(() => [])) {
      if (name.startsWith(".step-")) await rm(join(this.#parent, name), { recursive: true, force: true });
    }
    if (!this.#mirror) return;
    for (const checkpoint of await this.list()) {
      if ((await this.#localSteps()).includes(checkpoint.manifest.step)) this.#mirror.enqueue(checkpoint);
    }
  }

  get #copies(): ReadonlyMap<number, Manifest> {
    return this.#mirror?.manifests(this.#jobId) ?? new Map<number, Manifest>();
  }

  /** Of the newest first. `trouble`: why one that may be whole could not be read, when none could. */
  async #firstWhole(
    steps: readonly number[],
    spec: JobSpec,
    signal: AbortSignal | undefined,
  ): Promise<{ loaded?: LoadedCheckpoint; trouble?: SegueError }> {
    let trouble: SegueError | undefined;
    for (const step of [...steps].sort((a, b) => b - a)) {
      const isLocal = (await this.#localSteps()).includes(step);
      // While the mirror is away, an older copy is not worth waiting for.
      if (!isLocal && this.#away.size > 0) continue;
      for (const from of isLocal && this.#copies.has(step) ? ["here", "mirror"] : [isLocal ? "here" : "mirror"]) {
        try {
          return { loaded: await this.#verify(step, spec, from === "here", signal) };
        } catch (error) {
          trouble ??= this.#passOver(step, error);
        }
      }
    }
    return trouble ? { trouble } : {};
  }

  async #verify(step: number, spec: JobSpec, isLocal: boolean, signal: AbortSignal | undefined): Promise<LoadedCheckpoint> {
    if (!isLocal) await this.#inTime(this.#fetch(step), signal);
    const loaded = await loadCheckpoint(this.folder(step), spec);
    if (loaded.manifest.step !== step) {
      const message = `${loaded.folder} holds step ${loaded.manifest.step}.`;
      throw new SegueError("CHECKPOINT_DAMAGED", message, { status: "DATA_LOSS" });
    }
    this.#damaged.delete(step);
    this.#verified.add(step);
    return loaded;
  }

  async #inTime(asked: Promise<void> | undefined, signal: AbortSignal | undefined): Promise<void> {
    if (!asked || !this.#mirror) return;
    if ((await untilAborted(asked, signal)) === ABORTED) throw bucketAway(this.#mirror.url, "is not waited for any longer");
  }

  /** @returns the trouble, when the checkpoint may be whole all the same */
  #passOver(step: number, error: unknown): SegueError | undefined {
    const folder = this.folder(step);
    this.#verified.delete(step);
    const isAway = isBucketAway(error);
    (isAway ? this.#away : this.#damaged).set(step, error instanceof Error ? error.message : String(error));
    const event = isAway ? "checkpointAway" : "checkpointDamaged";
    const what = isAway ? "a checkpoint that only the bucket has is passed over" : "a damaged checkpoint is passed over";
    this.#logger.warn({ event, jobId: this.#jobId, step, folder, err: error }, what);
    if (isAway) return error;
    return error instanceof SegueError ? undefined : checkpointsUnreadable(folder, error);
  }

  /** Once at a time, whoever asks. */
  #fetch(step: number): Promise<void> {
    const fetch = async (): Promise<void> => this.#mirror?.fetch(this.#jobId, step, this.#parent);
    const fetching = this.#fetching.get(step) ?? fetch().finally(() => this.#fetching.delete(step));
    this.#fetching.set(step, fetching);
    return fetching;
  }

  async #health(step: number): Promise<CheckpointHealth> {
    if (this.#damaged.has(step)) return "damaged";
    if (this.#verified.has(step)) return "verified";
    const damage = this.#mirror?.damageOf(this.#jobId, step);
    if (damage !== undefined && !(await this.#localSteps()).includes(step)) return "damaged";
    if (this.#copies.has(step)) return "unknown";
    return readManifest(this.folder(step)).then(
      () => "unknown",
      () => "damaged",
    );
  }

  /** Here and in the mirror, as far as it is known. */
  async #steps(): Promise<number[]> {
    return [...new Set([...(await this.#localSteps()), ...this.#copies.keys()])];
  }

  async #localSteps(): Promise<number[]> {
    const names = await readdir(this.#parent).catch((error: NodeJS.ErrnoException): string[] => {
      if (error.code === "ENOENT") return [];
      throw checkpointsUnreadable(this.#parent, error);
    });
    return names.flatMap((name) => stepOfFolderName(name) ?? []);
  }
}

/** Whether a name is one of a checkpoint's files, and so may be served. */
export function isCheckpointFile(name: string): boolean {
  return basename(name) === name && (name === MANIFEST || Object.values<string>(FILES).includes(name));
}
