import { createHash } from "node:crypto";

/** Equal settings have equal names: asking twice is asking once. */
export function evaluationName(kind: string, settings: object): string {
  const digest = createHash("sha256").update(JSON.stringify(settings)).digest("hex");
  return `${kind}-${digest.slice(0, 8)}`;
}
