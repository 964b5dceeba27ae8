import { SegueError } from "@segue/core";
import {
  mergeAttempts,
  numberOrNull,
  numberOrZero,
  objectOrEmpty,
  parsedJson,
  parseEvaluation,
  parseLossRecord,
  parseRemembranceRecord,
  parseStatesRecord,
  redisKeys,
  textOrEmpty,
  type connectRedis,
} from "@segue/runtime";
import type { JobFindings, TrainingPoint } from "./findings.js";

type Redis = ReturnType<typeof connectRedis>;

const MAX_EVALUATIONS = 2_000;
const MAX_ATTEMPTS = 50;
/** Enough for a curve, few enough to read at once. */
const POINTS = 2_000;

/** @throws SegueError JOB_NOT_FOUND */
export async function readFindings(redis: Redis, jobId: string): Promise<JobFindings> {
  const [fields, checkpoints, ids] = await Promise.all([
    redis.hgetall(redisKeys.job(jobId)),
    redis.zrevrange(redisKeys.checkpoints(jobId), 0, -1),
    redis.zrevrange(redisKeys.evaluations(jobId), 0, MAX_EVALUATIONS - 1),
  ]);
  if (Object.keys(fields).length === 0) throw jobNotFound(jobId);
  const evaluations = await Promise.all(ids.map(async (id) => ({ id, hash: await redis.hgetall(redisKeys.evaluation(id)) })));
  const ofKind = (kind: string): typeof evaluations => evaluations.filter(({ hash }) => (hash["kind"] ?? "passkey") === kind);
  const parsedCheckpoints = checkpoints.map((json) => objectOrEmpty(parsedJson(json)));
  return {
    jobId,
    fields,
    checkpoints: parsedCheckpoints.map(({ step, digest }) => ({ step: numberOrZero(step), digest: textOrEmpty(digest) })),
    training: await readTraining(redis, jobId, numberOrZero(fields["step"]), numberOrZero(fields["attempt"])),
    passkeys: await Promise.all(
      ofKind("passkey").map(async ({ id, hash }) => parseEvaluation(id, hash, await redis.hgetall(redisKeys.cells(id)))),
    ),
    losses: ofKind("lossByPosition").map(({ id, hash }) => parseLossRecord(id, hash)),
    remembrances: ofKind("effectiveRemembrance").map(({ id, hash }) => parseRemembranceRecord(id, hash)),
    states: ofKind("stateStatistics").map(({ id, hash }) => parseStatesRecord(id, hash)),
  };
}

/** The recorded curve over all attempts, from the finest stream with few enough entries. */
async function readTraining(redis: Redis, jobId: string, steps: number, attempt: number): Promise<TrainingPoint[]> {
  const every = steps <= POINTS ? 1 : steps <= 10 * POINTS ? 10 : 100;
  const attempts = Array.from({ length: Math.min(attempt + 1, MAX_ATTEMPTS) }, (_, back) => attempt - back).reverse();
  const streams = await Promise.all(attempts.map((number) => redis.xrange(redisKeys.train(jobId, number, every), "-", "+")));
  return mergeAttempts(streams.map((entries) => entries.flatMap(([, values]) => trainingPoint(values))));
}

/** Of one entry of a stream: names and values in turn; nothing when it has no finite loss. */
function trainingPoint(values: readonly string[]): TrainingPoint[] {
  const field = (name: string): number | null => {
    const at = values.indexOf(name);
    return at < 0 ? null : numberOrNull(values[at + 1]);
  };
  const [step, loss] = [field("step"), field("loss")];
  return step === null || loss === null ? [] : [{ step, loss }];
}

function jobNotFound(jobId: string): SegueError {
  return new SegueError("JOB_NOT_FOUND", `Redis knows no job ${jobId}. \`segue jobs\` lists them.`, { status: "NOT_FOUND" });
}
