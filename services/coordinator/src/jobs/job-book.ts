import { SegueError, type JobSpec } from "@segue/core";
import { Bell } from "../async-queue.js";
import { isFinal, type JobRecord, type Phase } from "./job-record.js";
import type { JobStore } from "./job-store.js";
import type { JobView } from "./job-view.js";
import { NOT_STARTED, type LiveStatus } from "./live-status.js";

interface Entry {
  view: JobView;
  readonly watchers: Set<Bell>;
}

/** All jobs of this coordinator: durable records and live status, and who wants to hear of changes. */
export class JobBook {
  readonly #store: JobStore;
  readonly #onChange: (view: JobView) => void;
  readonly #entries = new Map<string, Entry>();

  /** @param onChange told of every change, after it */
  constructor(store: JobStore, onChange: (view: JobView) => void) {
    this.#store = store;
    this.#onChange = onChange;
  }

  /** Oldest first. */
  get jobs(): readonly JobView[] {
    return [...this.#entries.values()].map(({ view }) => view);
  }

  /** Takes a record that is on disk already. */
  adopt(record: JobRecord, live: LiveStatus = NOT_STARTED): void {
    this.#entries.set(record.jobId, { view: { record, live }, watchers: new Set() });
    this.#onChange({ record, live });
  }

  /** Durable when it resolves. */
  async add(record: JobRecord): Promise<void> {
    await this.#store.save(record);
    this.adopt(record);
  }

  /** @throws SegueError JOB_NOT_FOUND */
  get(jobId: string): JobView {
    return this.#entry(jobId).view;
  }

  findByKey(idempotencyKey: string): JobView | undefined {
    return this.jobs.find(({ record }) => record.idempotencyKey === idempotencyKey);
  }

  /** Moves a job to a phase; durable when it resolves, unless the disk refuses (see JobStore.saveEventually). No change is no write. */
  async setPhase(
    jobId: string,
    phase: Phase,
    reason: string,
    more: Partial<Pick<JobRecord, "errorCode" | "attempt" | "dataFingerprint">> = {},
  ): Promise<void> {
    const { record } = this.get(jobId);
    const next: JobRecord = { ...record, phase, reason, ...more, errorCode: more.errorCode };
    const isSame = phase === record.phase && reason === record.reason && next.errorCode === record.errorCode;
    if (isSame && next.attempt === record.attempt) return;
    const updated = { ...next, updatedAtMs: Date.now() };
    this.#change(jobId, { record: updated });
    await this.#store.saveEventually(updated);
  }

  /** Changes the spec of a job that does not run; durable when it resolves, unchanged when it rejects. */
  async setSpec(jobId: string, spec: JobSpec): Promise<void> {
    const { record } = this.get(jobId);
    const edited = { spec, submittedSpec: record.submittedSpec ?? record.spec, updatedAtMs: Date.now() };
    await this.#store.save({ ...record, ...edited });
    this.#change(jobId, { record: { ...this.get(jobId).record, ...edited } });
  }

  /** Notes what was found out on the way; written when the disk takes it. No change is no write. */
  note(jobId: string, what: Pick<JobRecord, "dataSteps"> | Pick<JobRecord, "checkpointStep">): void {
    const { record } = this.get(jobId);
    const updated: JobRecord = { ...record, ...what, updatedAtMs: Date.now() };
    if (updated.dataSteps === record.dataSteps && updated.checkpointStep === record.checkpointStep) return;
    this.#change(jobId, { record: updated });
    void this.#store.saveEventually(updated);
  }

  setLive(jobId: string, patch: Partial<LiveStatus>): void {
    const { live, record } = this.get(jobId);
    this.#change(jobId, { live: { ...live, ...patch }, record: { ...record, updatedAtMs: Date.now() } });
  }

  /** The job at once and after changes, skipping versions the reader is too slow for; ends after a final phase. */
  async *watch(jobId: string, signal: AbortSignal): AsyncGenerator<JobView, void, undefined> {
    const entry = this.#entry(jobId);
    const bell = new Bell();
    const ring = (): void => bell.ring();
    entry.watchers.add(bell);
    signal.addEventListener("abort", ring, { once: true });
    try {
      for (;;) {
        const { view } = entry;
        yield view;
        if (isFinal(view.record.phase)) return;
        if (entry.view === view) await bell.wait();
        if (signal.aborted) return;
      }
    } finally {
      entry.watchers.delete(bell);
      signal.removeEventListener("abort", ring);
    }
  }

  #change(jobId: string, patch: Partial<JobView>): void {
    const entry = this.#entry(jobId);
    entry.view = { ...entry.view, ...patch };
    for (const watcher of entry.watchers) watcher.ring();
    this.#onChange(entry.view);
  }

  #entry(jobId: string): Entry {
    const entry = this.#entries.get(jobId);
    if (!entry) throw new SegueError("JOB_NOT_FOUND", `There is no job ${jobId}.`, { status: "NOT_FOUND" });
    return entry;
  }
}
