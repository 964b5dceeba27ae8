import { parseLossRecord, type connectRedis, type LossRecord } from "@segue/runtime";
import { readRecord } from "./read-record.js";

/** An evaluation of loss by position as far as it is known. */
export interface LossResult extends LossRecord {
  readonly cellsDone: number;
}

/** What Redis knows of it (docs/reference/redis.md); undefined when nothing. */
export function readLoss(redis: ReturnType<typeof connectRedis>, evaluationId: string): Promise<LossResult | undefined> {
  return readRecord(redis, evaluationId, parseLossRecord);
}
