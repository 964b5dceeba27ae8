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

/** Bytes as "8GiB", "512MiB", "5GB" (5,000,000,000) or a plain number, as a parser for commander. */
export function byteCount(text: string): number {
  const [, amount, prefix = "", binary = ""] = /^(\d{1,15}(?:\.\d{1,6})?) ?(?:([KMGT])(i?)B|B)?$/i.exec(text.trim()) ?? [];
  const bytes = Math.floor(
    Number(amount) * (binary === "" ? 1000 : 1024) ** ["", "k", "m", "g", "t"].indexOf(prefix.toLowerCase()),
  );
  if (amount === undefined || bytes < 1) throw new InvalidArgumentError("It must be a number of bytes such as 8GiB or 512MiB.");
  return bytes;
}

/** Token counts separated by commas; K is 1,024 and M is 1,048,576. */
export function tokenCounts(text: string): number[] {
  return list(text, "token counts such as 1K,2K,4096", (item) => {
    const value = tokenCount(item);
    return value !== undefined && value > 0 ? value : undefined;
  });
}

/** Numbers of GPUs, counted from 0 and separated by commas. */
export function gpuNumbers(text: string): number[] {
  return list(text, "numbers of GPUs such as 0,2", (item) => (/^\d{1,3}$/.test(item) ? Number(item) : undefined));
}

/** Shares between 0 and 1 separated by commas. */
export function shares(text: string): number[] {
  return list(text, "shares between 0 and 1 such as 0,0.5,1", (item) => {
    const value = item === "" ? NaN : Number(item);
    return value >= 0 && value <= 1 ? value : undefined;
  });
}

/** A share between 0 and 1. */
export function share(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError("It must be a share between 0 and 1.");
}

/** A number from 1 on. */
export function factor(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (value >= 1 && value < Infinity) return value;
  throw new InvalidArgumentError("It must be a number from 1 on.");
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
