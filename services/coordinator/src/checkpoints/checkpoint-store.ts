import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { SegueError, type CheckpointsSpec, type JobSpec } from "@segue/core";
import type { Logger } from "@segue/runtime";
import type { CheckpointMirror } from "./checkpoint-mirror.js";
import { loadCheckpoint, type LoadedCheckpoint } from "./load-checkpoint.js";
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
  readonly #fetching = new Map<number, Promise<boolean>>();
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

  /** What is wrong with checkpoints that were passed over, by step. */
  get damaged(): ReadonlyMap<number, string> {
    return this.#damaged;
  }

  folder(step: number): string {
    return join(this.#parent, checkpointFolderName(step));
  }

  /** Newest first, by their manifests; files are not verified. Damaged ones are left out. */
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
   * The newest checkpoint that is whole. A damaged one is passed over with a warning, remembered, and stays where it is until a newer
   * one is written; where the mirror has a copy, the copy takes its place.
   */
  async loadNewest(spec: JobSpec): Promise<LoadedCheckpoint | undefined> {
    this.#damaged.clear();
    const steps = new Set([...(await this.#localSteps()), ...this.#copies.keys()]);
    for (const step of [...steps].sort((a, b) => b - a)) {
      const loaded = await this.#load(step, spec);
      if (loaded) return loaded;
    }
    return undefined;
  }

  /** Brings the files of a checkpoint back if only the mirror has them. @returns whether they are here */
  async ensureLocal(step: number): Promise<boolean> {
    if ((await this.#localSteps()).includes(step)) return true;
    if (!this.#copies.has(step)) return false;
    const fetching = this.#fetching.get(step) ?? this.#fetch(step).finally(() => this.#fetching.delete(step));
    this.#fetching.set(step, fetching);
    return fetching;
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
    const steps = [...new Set([...(await this.#localSteps()), ...this.#copies.keys()])];
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

  async #load(step: number, spec: JobSpec): Promise<LoadedCheckpoint | undefined> {
    const isLocal = (await this.#localSteps()).includes(step);
    try {
      return await this.#verify(step, spec, isLocal);
    } catch (error) {
      this.#passOver(step, error);
    }
    if (!isLocal || !this.#copies.has(step)) return undefined;
    try {
      return await this.#verify(step, spec, false);
    } catch (error) {
      this.#passOver(step, error);
      return undefined;
    }
  }

  async #verify(step: number, spec: JobSpec, isLocal: boolean): Promise<LoadedCheckpoint> {
    if (!isLocal) await this.#mirror?.fetch(this.#jobId, step, this.#parent);
    const loaded = await loadCheckpoint(this.folder(step), spec);
    if (loaded.manifest.step !== step) {
      const message = `${loaded.folder} holds step ${loaded.manifest.step}.`;
      throw new SegueError("CHECKPOINT_DAMAGED", message, { status: "DATA_LOSS" });
    }
    this.#damaged.delete(step);
    this.#verified.add(step);
    return loaded;
  }

  #passOver(step: number, error: unknown): void {
    this.#verified.delete(step);
    this.#damaged.set(step, error instanceof Error ? error.message : String(error));
    const folder = this.folder(step);
    this.#logger.warn(
      { event: "checkpointDamaged", jobId: this.#jobId, step, folder, err: error },
      "a damaged checkpoint is passed over",
    );
  }

  async #fetch(step: number): Promise<boolean> {
    await mkdir(this.#parent, { recursive: true });
    await this.#mirror?.fetch(this.#jobId, step, this.#parent);
    return true;
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

  async #localSteps(): Promise<number[]> {
    const names = await readdir(this.#parent).catch(() => []);
    return names.flatMap((name) => stepOfFolderName(name) ?? []);
  }
}

/** Whether a name is one of a checkpoint's files, and so may be served. */
export function isCheckpointFile(name: string): boolean {
  return basename(name) === name && (name === MANIFEST || Object.values<string>(FILES).includes(name));
}
