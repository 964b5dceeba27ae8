import { InvalidArgumentError } from "commander";
import { parseCure, type CureInput } from "@segue/core";

/** Collects a repeatable option. */
export function addCure(text: string, previous: readonly CureInput[] | undefined): CureInput[] {
  try {
    return [...(previous ?? []), parseCure(text)];
  } catch (error) {
    if (error instanceof RangeError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}

export interface CureGrid {
  readonly retention?: readonly number[];
  readonly insertion?: readonly number[];
}

/** Collects `retention=0.9999,0.99999` and `insertion=0.6,0.75`. */
export function addToGrid(text: string, previous: CureGrid | undefined): CureGrid {
  const [, name, list = ""] = /^(retention|insertion)=(.+)$/.exec(text) ?? [];
  const values = list.split(",").map((value) => (value.trim() === "" ? NaN : Number(value)));
  if (name === undefined || values.some((value) => !Number.isFinite(value))) {
    throw new InvalidArgumentError("It must be retention=... or insertion=... with numbers such as 0.9999,0.99999.");
  }
  return { ...previous, [name]: [...new Set(values)] };
}

/** Every combination of the grid, after the model without a cure; what the grid does not name keeps its default. */
export function gridCures({ retention, insertion }: CureGrid): CureInput[] {
  const grid = (retention ?? [undefined]).flatMap((own) => (insertion ?? [undefined]).map((other) => ({ own, other })));
  return [
    { kind: "none" },
    ...grid.map(({ own, other }) => ({
      kind: "reduced" as const,
      ...(own !== undefined && { retention: own }),
      ...(other !== undefined && { insertion: other }),
    })),
  ];
}
