import { cureKey } from "@segue/core";
import type { connectRedis, StatesRecord } from "@segue/runtime";
import type { NamedTrace } from "./states-section.js";

/** The statistics of a checkpoint's states that are done, whose files Redis still keeps. */
export async function readTraces(
  redis: ReturnType<typeof connectRedis>,
  records: readonly StatesRecord[],
  step: number,
): Promise<NamedTrace[]> {
  const done = records.filter((record) => record.step === step && record.fileKey !== "");
  const traces = await Promise.all(
    done.map(async ({ name, cure, fileKey, trainTokens }) => {
      const file = await redis.getBuffer(fileKey);
      const cured = cure.kind === "none" ? name : `${name} with ${cureKey(cure)}`;
      return file ? [{ name: cured, file, trainTokens }] : [];
    }),
  );
  return traces.flat();
}
