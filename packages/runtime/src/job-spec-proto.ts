import type { JobSpec } from "@segue/core";
import { create, JobSpecSchema, type JobSpec as JobSpecMessage } from "@segue/protocol";

/** The wire form of an effective spec. The fields have the same names on both sides. */
export function jobSpecToProto(spec: JobSpec): JobSpecMessage {
  return create(JobSpecSchema, {
    ...spec,
    data: { ...spec.data, paths: [...spec.data.paths] },
    tbptt: { ...spec.tbptt, curriculum: [...spec.tbptt.curriculum] },
    evaluations: spec.evaluations.map((evaluation) => ({
      ...evaluation,
      cures: [...evaluation.cures],
      passkey: evaluation.passkey && {
        ...evaluation.passkey,
        lengths: [...evaluation.passkey.lengths],
        depths: [...evaluation.passkey.depths],
      },
      stateStatistics: evaluation.stateStatistics && {
        ...evaluation.stateStatistics,
        histogramTokens: [...evaluation.stateStatistics.histogramTokens],
      },
      effectiveRemembrance: evaluation.effectiveRemembrance && {
        ...evaluation.effectiveRemembrance,
        starts: [...evaluation.effectiveRemembrance.starts],
      },
    })),
  });
}

/**
 * A spec from the wire as the plain object a YAML file would give, for validateJobSpec. What the sender left out is left out: the wire
 * cannot tell an empty list from none.
 */
export function jobSpecInputFromProto(message: JobSpecMessage): unknown {
  return plain(message);
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).filter(([name, field]) => {
    return !name.startsWith("$") && field !== undefined && !(Array.isArray(field) && field.length === 0);
  });
  return Object.fromEntries(fields.map(([name, field]) => [name, plain(field)]));
}
