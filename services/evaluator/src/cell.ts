import { SegueError, type Interval } from "@segue/core";
import { z } from "zod";

/** The checkpoint a cell is about, and the evaluation it is part of. */
const subject = {
  jobId: z.string().min(1),
  step: z.number().int().min(0),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  evaluationId: z.string().min(1),
};

/** What the coordinator puts into the queue for one cell of a heat map (docs/reference/redis.md). */
const passkeyCellSchema = z.object({
  ...subject,
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

/** The same for a few prompts of an evaluation of loss by position. */
const lossCellSchema = z.object({
  task: z.literal("lossByPosition"),
  ...subject,
  firstPrompt: z.number().int().min(0),
  prompts: z.number().int().min(1).max(256),
  tokens: z.number().int().min(1),
  bucketTokens: z.number().int().min(1),
  prompt: z.enum(["newlines", "passkey", "random"]),
  seed: z.number().int().min(0),
});

export type PasskeyCell = z.output<typeof passkeyCellSchema>;
export type LossCell = z.output<typeof lossCellSchema>;
export type Cell = PasskeyCell | LossCell;

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

export interface LossCellResult {
  readonly firstPrompt: number;
  readonly prompts: number;
  /** Mean cross-entropy of each bucket of positions, over the cell's prompts, to seven digits; null where it is no finite number. */
  readonly losses: readonly (number | null)[];
  readonly ms: number;
  /** That the model was run on, of all prompts. */
  readonly tokens: number;
}

export type CellResult = PasskeyCellResult | LossCellResult;

export function isLossCell(cell: Cell): cell is LossCell {
  return "firstPrompt" in cell;
}

export function isLossResult(result: CellResult): result is LossCellResult {
  return "firstPrompt" in result;
}

/** @throws SegueError CELL_INVALID: no retry will mend it */
export function parseCell(data: unknown): Cell {
  const isLoss = typeof data === "object" && data !== null && "task" in data;
  const parsed = isLoss ? lossCellSchema.safeParse(data) : passkeyCellSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const violations = parsed.error.issues.map(({ path, message }) => ({ field: path.join("."), description: message }));
  throw new SegueError("CELL_INVALID", "The queue holds a cell that is not of this version's form.", { violations });
}

/** In words, for people. */
export function cellText(cell: Cell): string {
  const of = `${cell.jobId} step ${cell.step}`;
  if (isLossCell(cell)) return `${of}: loss by position, ${cell.tokens} tokens, ${cell.prompt} ${cell.firstPrompt}`;
  const { length, depth, carryState } = cell;
  return `${of}: length ${length}, depth ${depth}${carryState ? "" : ", state not carried"}`;
}

/** The unit of its progress: prompts answered, or tokens scored. */
export function cellSize(cell: Cell): number {
  return isLossCell(cell) ? cell.prompts * cell.tokens : cell.samples;
}
