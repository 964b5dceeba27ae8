import { minimumPasskeyPromptTokens } from "../passkey/prompt.js";
import { byteTokenizer } from "../tokenizer/tokenizer.js";
import { checkCures } from "./cure-checks.js";
import { EVALUATION_KINDS } from "./evaluation-kind.js";
import type { JobSpec } from "./job-spec.js";
import { checkLongPrompts } from "./long-prompt-checks.js";
import type { Refuse } from "./refuse.js";
import { LIMITS, type JobSpecInput } from "./schema.js";

/** The rules that span the settings of `evaluations`. */
export function checkEvaluations(input: JobSpecInput, spec: JobSpec, refuse: Refuse): void {
  const names = new Set<string>();
  spec.evaluations.forEach((evaluation, index) => {
    const { name, passkey } = evaluation;
    const field = `evaluations[${index}]`;
    refuse(names.has(name), `${field}.name`, `"${name}" is used twice; evaluations need different names`);
    names.add(name);
    const [kind = "passkey", other] = EVALUATION_KINDS.filter((one) => input.evaluations?.[index]?.[one] !== undefined);
    refuse(other !== undefined, `${field}.${kind}`, `excludes ${other ?? ""}; make two evaluations of them`);
    checkCures(input.evaluations?.[index]?.cures ?? evaluation.cures, evaluation, `${field}.cures`, refuse);
    checkLongPrompts(evaluation, spec.model, field, refuse);
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
