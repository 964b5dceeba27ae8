import { CURE_SETTINGS, type CureInput, type CureKind } from "./cure-settings.js";

/**
 * A cure as the command line has it: its kind, then its settings in order, each of which may be left out at the end: `none`, `reduced`,
 * `reduced:0.9999,0.75`, `normalised:1`, `window:2K`, `longmamba:0.2`. K is 1,024 and M 1,048,576.
 * @throws RangeError in a sentence
 */
export function parseCure(text: string): CureInput {
  const [, name = "", , list] = /^([a-z]+)(:(.*))?$/i.exec(text.trim()) ?? [];
  const kinds = Object.keys(CURE_SETTINGS) as CureKind[];
  const kind = kinds.find((known) => known.toLowerCase() === name.toLowerCase());
  if (kind === undefined) throw new RangeError(`A cure must be one of ${kinds.join(", ").toLowerCase()}, but is "${text}".`);
  const settings: readonly string[] = CURE_SETTINGS[kind];
  const values = list === undefined ? [] : list.split(",").map((value) => numberOf(value.trim()));
  if (values.length > settings.length || values.some((value) => value === undefined)) {
    const form = settings.length === 0 ? "no settings" : `numbers for ${settings.join(", ")} after a colon`;
    throw new RangeError(`The cure ${name} takes ${form}, but is "${text}".`);
  }
  const given = Object.fromEntries(values.map((value, index) => [settings[index], value])) as Omit<CureInput, "kind">;
  return { kind, ...given };
}

function numberOf(text: string): number | undefined {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?(?:e-?\d+)?)([KM]?)$/i.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * { "": 1, K: 1024, M: 1024 ** 2 }[unit.toUpperCase() as "" | "K" | "M"];
}
