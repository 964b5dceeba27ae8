import { judgeCollapse, meanCurve, SegueError } from "@segue/core";
import { z } from "zod";
import { isLossResult, type CellResult } from "./cell.js";

const ids = { jobId: z.string().min(1), evaluationId: z.string().min(1) };
const heatMapSchema = z.object(ids);
const lossSchema = z.object({
  task: z.literal("lossByPosition"),
  ...ids,
  bucketTokens: z.number().int().min(1),
  trainTokens: z.number().int().min(1),
  collapseFactor: z.number().min(1),
});

/** What the coordinator puts into the queue to close an evaluation whose cells are complete. */
export type Closing = z.output<typeof heatMapSchema> | z.output<typeof lossSchema>;

export interface Outcome {
  /** Fields of the evaluation's hash. */
  readonly fields: Readonly<Record<string, string | number>>;
  /** For the log and the queue. */
  readonly summary: object;
}

/** @throws SegueError CELL_INVALID */
export function parseClosing(data: unknown): Closing {
  const isLoss = typeof data === "object" && data !== null && "task" in data;
  const parsed = isLoss ? lossSchema.safeParse(data) : heatMapSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const violations = parsed.error.issues.map(({ path, message }) => ({ field: path.join("."), description: message }));
  throw new SegueError("CELL_INVALID", "The queue holds an evaluation that is not of this version's form.", { violations });
}

/**
 * What the cells of an evaluation come to: the mean accuracy of a heat map, or the mean loss curve and whether it shows collapse. Pure.
 * @throws SegueError LOSS_NOT_FINITE when there is no loss within the training length to compare with
 */
export function closeEvaluation(closing: Closing, results: readonly CellResult[]): Outcome {
  if (!("task" in closing)) {
    const shares = results.flatMap((result) => (isLossResult(result) ? [] : [result.correct / result.samples]));
    const accuracy = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
    return { fields: { accuracy }, summary: { accuracy } };
  }
  const { bucketTokens, trainTokens, collapseFactor } = closing;
  // In order of their prompts: sums of floats depend on it.
  const parts = results.filter(isLossResult).sort((a, b) => a.firstPrompt - b.firstPrompt);
  const losses = meanCurve(parts).map((loss) => loss && Number(loss.toPrecision(7)));
  try {
    const collapse = judgeCollapse({ bucketTokens, losses }, trainTokens, collapseFactor);
    return { fields: { losses: JSON.stringify(losses), collapse: JSON.stringify(collapse) }, summary: collapse };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new SegueError("LOSS_NOT_FINITE", `The collapse rule cannot be applied: ${cause.message}.`, { cause });
  }
}
