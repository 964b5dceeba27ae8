import type { CureInput, CureSpec } from "@segue/core";
import type { EvaluationSpecSchema, MessageInitShape } from "@segue/protocol";
import type { connectRedis } from "@segue/runtime";
import type { Command } from "commander";

/** What every kind of evaluation says of itself in Redis. */
export interface EvaluationStatus {
  readonly evaluationId: string;
  readonly step: number;
  readonly cure: CureSpec;
  /** queued, running, done or failed. */
  readonly status: string;
  /** Why it failed; else empty. */
  readonly reason: string;
}

/** How the command line asks for a kind of evaluation and shows what came out; ./kinds.ts lists them. */
export interface EvaluationKindView<Options = unknown, Result extends EvaluationStatus = EvaluationStatus> {
  /** The option that asks for it, as commander names it. */
  readonly option: string;
  addOptions(command: Command): Command;
  evaluation(options: Options, cures: CureInput[]): MessageInitShape<typeof EvaluationSpecSchema>;
  /** What Redis knows of it; undefined when nothing. */
  read(redis: ReturnType<typeof connectRedis>, evaluationId: string): Promise<Result | undefined>;
  cellsDone(result: Result): number;
  isComplete(result: Result): boolean;
  /** What --out writes; absent for kinds without files, undefined when it is there no more. */
  file?(redis: ReturnType<typeof connectRedis>, result: Result): Promise<Uint8Array | undefined>;
  /** For --json. */
  json(result: Result): object;
  text(result: Result, colour: boolean): string;
  /** The same evaluation with several cures, a column each. */
  comparison(results: readonly Result[]): string;
}
