import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import { isServiceError, type Jobs, type Client } from "@segue/protocol";
import { isFinal, jobView, type JobView } from "../show/job-view.js";

/** How long a coordinator may be away, for example to restart, before following it ends with the error. */
const AWAY_MS = 60_000;
const PAUSE_MS = 500;

/**
 * The job at once and again at every change until a final phase; outlives a restart of the coordinator.
 * @throws ServiceError of the first call, or of the last one after a minute without an answer; CANCELLED when the signal aborts
 */
export async function* followJob(
  jobs: Client<typeof Jobs>,
  jobId: string,
  options: { readonly signal?: AbortSignal; readonly onAway?: () => void } = {},
): AsyncGenerator<JobView, void, undefined> {
  let answeredAtMs: number | undefined;
  let isAway = false;
  for (;;) {
    try {
      for await (const { job } of jobs.watchJob({ jobId }, { signal: options.signal })) {
        answeredAtMs = Date.now();
        isAway = false;
        if (!job) continue;
        const view = jobView(job);
        yield view;
        if (isFinal(view.phase)) return;
      }
    } catch (error) {
      const mayReturn = isServiceError(error) && error.code === grpc.status.UNAVAILABLE && answeredAtMs !== undefined;
      if (!mayReturn || Date.now() - answeredAtMs! > AWAY_MS) throw error;
      if (!isAway) options.onAway?.();
      isAway = true;
    }
    // Also after a stream that ended in no final phase: the coordinator is shutting down.
    await sleep(PAUSE_MS, undefined, options.signal ? { signal: options.signal } : {});
  }
}
