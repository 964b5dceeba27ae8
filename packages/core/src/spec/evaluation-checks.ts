import { minimumPasskeyPromptTokens } from "../passkey/prompt.js";
import { byteTokenizer } from "../tokenizer/tokenizer.js";
import type { JobSpec, LossByPositionSpec } from "./job-spec.js";
import { checkCures } from "./cure-checks.js";
import type { Refuse } from "./refuse.js";
import { LIMITS, type JobSpecInput } from "./schema.js";

/** The rules that span the settings of `evaluations`. */
export function checkEvaluations(input: JobSpecInput, spec: JobSpec, refuse: Refuse): void {
  const names = new Set<string>();
  spec.evaluations.forEach((evaluation, index) => {
    const { name, passkey, lossByPosition } = evaluation;
    const field = `evaluations[${index}]`;
    refuse(names.has(name), `${field}.name`, `"${name}" is used twice; evaluations need different names`);
    names.add(name);
    const both = lossByPosition !== undefined && input.evaluations?.[index]?.passkey !== undefined;
    refuse(both, `${field}.passkey`, "excludes lossByPosition; make two evaluations of them");
    checkCures(input.evaluations?.[index]?.cures ?? evaluation.cures, evaluation, `${field}.cures`, refuse);
    if (lossByPosition) checkLossByPosition(lossByPosition, `${field}.lossByPosition`, refuse);
    if (!passkey) return;
    for (const list of ["lengths", "depths"] as const) {
      const repeated = passkey[list].find((value, at) => passkey[list].indexOf(value) !== at);
      refuse(repeated !== undefined, `${field}.passkey.${list}`, `holds ${repeated ?? ""} twice; remove one`);
    }
    if (spec.tokenizer.kind === "bytes") {
      const least = minimumPasskeyPromptTokens(byteTokenizer(), passkey.template, passkey.digits);
      const tooShort = passkey.lengths.find((length) => length < least);
      refuse(
        tooShort !== undefined,
        `${field}.passkey.lengths`,
        `must be at least ${least} to hold a prompt, but one is ${tooShort ?? ""}`,
        `${field}.passkey.digits`,
        "tokenizer.kind",
      );
    }
    const cells = passkey.lengths.length * passkey.depths.length;
    refuse(
      cells > LIMITS.cellsPerEvaluation,
      `${field}.passkey`,
      `has ${cells} cells (lengths x depths), more than ${LIMITS.cellsPerEvaluation}`,
    );
  });
}

function checkLossByPosition(loss: LossByPositionSpec, field: string, refuse: Refuse): void {
  const { tokens, bucketTokens, prompt, prompts, trainTokens } = loss;
  const sizes = [`${field}.tokens`, `${field}.bucketTokens`];
  refuse(
    tokens % bucketTokens !== 0,
    `${field}.tokens`,
    `must be a multiple of bucketTokens, ${bucketTokens}, but is ${tokens}`,
    ...sizes,
  );
  refuse(
    tokens / bucketTokens > LIMITS.bucketsPerCurve,
    `${field}.bucketTokens`,
    `must be larger: ${tokens} tokens have more than ${LIMITS.bucketsPerCurve} buckets of ${bucketTokens}`,
    ...sizes,
  );
  refuse(
    trainTokens < bucketTokens,
    `${field}.trainTokens`,
    `must hold a bucket of ${bucketTokens} tokens to compare the others with, but is ${trainTokens}`,
    ...sizes,
  );
  refuse(
    prompt === "newlines" && prompts > 1,
    `${field}.prompts`,
    `must be 1 for newlines, which are always the same prompt, but is ${prompts}`,
    `${field}.prompt`,
  );
}
