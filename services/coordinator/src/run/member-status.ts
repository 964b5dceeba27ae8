import type { Ledger } from "@segue/core";
import type { MemberStatus } from "../jobs/live-status.js";
import type { AttachedWorker } from "../workers/attached-worker.js";

/** The present members as people see them. */
export function memberStatuses({ members }: Ledger, workers: ReadonlyMap<string, AttachedWorker>): MemberStatus[] {
  return members.map(({ workerId, shards }) => {
    const { shardMs = 0, straggler = false, stepTimes } = workers.get(workerId) ?? {};
    return { workerId, shards: shards.length, shardMs, straggler, stepTimes };
  });
}
