import { SegueError, type Interval } from "@segue/core";
import { z } from "zod";

/** What the coordinator puts into the queue for one cell of a heat map (docs/reference/redis.md). */
const cellSchema = z.object({
  jobId: z.string().min(1),
  step: z.number().int().min(0),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  evaluationId: z.string().min(1),
  length: z.number().int().min(1),
  depth: z.number().min(0).max(1),
  samples: z.number().int().min(1).max(10_000),
  digits: z.number().int().min(1).max(15),
  seed: z.number().int().min(0),
  template: z.enum(["paper", "code"]),
  carryState: z.boolean(),
  /** Absent from coordinators that know no early stop. */
  stopWidth: z.number().min(0).max(1).default(0),
});

export type PasskeyCell = z.output<typeof cellSchema>;

export interface PasskeyCellResult {
  readonly length: number;
  readonly depth: number;
  readonly correct: number;
  /** Prompts answered: fewer than the cell's when it stopped early. */
  readonly samples: number;
  /** 95 % interval of the accuracy. */
  readonly interval: Interval;
  readonly ms: number;
  /** That the model was run on, of all lanes. Like the time it depends on what was evaluated before. */
  readonly tokens: number;
  /** What was expected and what was decoded, of the first prompts. */
  readonly answers: readonly { readonly expected: string; readonly decoded: string }[];
}

/** @throws SegueError CELL_INVALID: no retry will mend it */
export function parseCell(data: unknown): PasskeyCell {
  const parsed = cellSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const violations = parsed.error.issues.map(({ path, message }) => ({ field: path.join("."), description: message }));
  throw new SegueError("CELL_INVALID", "The queue holds a cell that is not of this version's form.", { violations });
}

/** In words, for people. */
export function cellText({ jobId, step, length, depth, carryState }: PasskeyCell): string {
  return `${jobId} step ${step}: length ${length}, depth ${depth}${carryState ? "" : ", state not carried"}`;
}
