import type { JobSpec } from "@segue/core";
import type { Connection } from "../connection.js";

/**
 * Queues each passkey evaluation of a spec for the job's newest checkpoint, and the same with the state treated the other way: zeroed at segment
 * boundaries where the job carries it, carried where the job does not.
 * @returns their ids
 */
export async function evaluateBothWays({ jobs }: Connection, jobId: string, { evaluations }: JobSpec): Promise<string[]> {
  const ids: string[] = [];
  for (const { name, passkey } of evaluations) {
    if (!passkey) continue;
    const queue = async (suffix: string, carryState: boolean): Promise<void> => {
      const cells = { ...passkey, lengths: [...passkey.lengths], depths: [...passkey.depths], carryState };
      const evaluation = { name: `${name}${suffix}`, everyCheckpoints: 1, passkey: cells };
      ids.push((await jobs.submitEvaluation({ jobId, evaluation })).evaluationId);
    };
    // The first is the job's own: it exists already, unless the job was paused.
    await queue("", passkey.carryState);
    await queue(passkey.carryState ? "-state-zeroed" : "-state-carried", !passkey.carryState);
  }
  return ids;
}
