import { cureKey } from "../cures/cure.js";
import { CURE_SETTINGS, type WrittenCure } from "../cures/cure-settings.js";
import type { EvaluationSpec } from "./job-spec.js";
import type { Refuse } from "./refuse.js";

/** The rules of `cures` in one evaluation. */
export function checkCures(
  inputs: readonly WrittenCure[],
  { cures, passkey }: EvaluationSpec,
  field: string,
  refuse: Refuse,
): void {
  const keys = cures.map(cureKey);
  cures.forEach((cure, index) => {
    const own = `${field}[${index}]`;
    const input = inputs[index] ?? {};
    const kinds = Object.keys(CURE_SETTINGS).join(", ");
    refuse(input.kind === undefined, `${own}.kind`, `is missing; give one of ${kinds}`);
    const settings: readonly string[] = CURE_SETTINGS[cure.kind];
    const has = settings.length === 0 ? "which has no settings" : `which has ${settings.join(", ")}`;
    for (const [name, value] of Object.entries(input)) {
      const strange = name !== "kind" && value !== undefined && !settings.includes(name);
      refuse(strange, `${own}.${name}`, `is not a setting of the cure ${cure.kind}, ${has}`, `${own}.kind`);
    }
    const first = keys.indexOf(keys[index]!);
    refuse(first !== index, own, `is the same as ${field}[${first}]; remove one`, `${field}[${first}]`);
    const { tokens, everyTokens } = cure.kind === "window" ? cure : { tokens: 0, everyTokens: 1 };
    refuse(
      tokens % everyTokens !== 0,
      `${own}.everyTokens`,
      `must divide the window's ${tokens} tokens, but is ${everyTokens}`,
      `${own}.tokens`,
    );
  });
  const cured = cures.find(({ kind }) => kind !== "none");
  refuse(
    passkey?.carryState === false && cured !== undefined,
    field,
    `must be none with passkey.carryState false, whose states never live long enough to be cured, but has ${cured?.kind ?? ""}`,
  );
}
