import { InvalidArgumentError } from "commander";

/** A whole number within bounds, as a parser for commander. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = tokenCount(text);
    if (value === undefined || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Token counts separated by commas; K is 1,024 and M is 1,048,576. */
export function tokenCounts(text: string): number[] {
  return list(text, "token counts such as 1K,2K,4096", (item) => {
    const value = tokenCount(item);
    return value !== undefined && value > 0 ? value : undefined;
  });
}

/** Shares between 0 and 1 separated by commas. */
export function shares(text: string): number[] {
  return list(text, "shares between 0 and 1 such as 0,0.5,1", (item) => {
    const value = item === "" ? NaN : Number(item);
    return value >= 0 && value <= 1 ? value : undefined;
  });
}

function tokenCount(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,12})([KM]?)$/i.exec(text.trim()) ?? [];
  if (digits === undefined) return undefined;
  return Number(digits) * ({ "": 1, K: 1024, M: 1024 ** 2 }[(unit ?? "").toUpperCase()] ?? NaN);
}

function list(text: string, what: string, parse: (item: string) => number | undefined): number[] {
  const values = text.split(",").map((item) => {
    const value = parse(item.trim());
    if (value === undefined) throw new InvalidArgumentError(`It must be a list of ${what}.`);
    return value;
  });
  return [...new Set(values)];
}
