/** Lengths as multiples of 1,024: 1536 is "1.5Ki". */
export function formatTokens(tokens: number): string {
  return scaled(tokens, 1024, ["", "Ki", "Mi", "Gi", "Ti"]);
}

/** Three significant digits with k, M, G: 12914688 is "12.9M". */
export function formatShort(value: number): string {
  return scaled(value, 1000, ["", "k", "M", "G", "T"]);
}

export function formatPercent(share: number): string {
  return `${Number((100 * share).toPrecision(3))} %`;
}

/** As short as four significant digits allow. */
export function formatPlain(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

export const NUMBER_FORMATS = { tokens: formatTokens, short: formatShort, percent: formatPercent, plain: formatPlain } as const;

function scaled(value: number, base: number, units: readonly string[]): string {
  let rest = value;
  let unit = 0;
  while (Math.abs(rest) >= base && unit < units.length - 1) {
    rest /= base;
    unit++;
  }
  return `${Number(rest.toPrecision(unit === 0 ? 4 : 3))}${units[unit]}`;
}
