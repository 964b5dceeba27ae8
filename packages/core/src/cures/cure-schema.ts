import { z } from "zod";
import type { CureSpec } from "./cure.js";

const tokens = z.number().int().min(1);
const share = z.number().gt(0).max(1);
const factor = z.number().gt(0);

/** A whole cure as a machine wrote it, in a queue or in Redis. */
export const cureSchema: z.ZodType<CureSpec> = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("none") }),
  z.object({ kind: z.literal("reduced"), retention: share, insertion: z.number().min(0) }),
  z.object({ kind: z.literal("normalised"), multiplier: factor, referenceTokens: tokens, everyTokens: tokens }),
  z.object({ kind: z.literal("window"), tokens, everyTokens: tokens }),
  z.object({ kind: z.literal("longMamba"), dtScale: factor }),
]);
