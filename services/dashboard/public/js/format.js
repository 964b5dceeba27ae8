const grouped = new Intl.NumberFormat("en-US");
const UNKNOWN = "\u2013";

/** 1234567 -> "1,234,567" */
export function whole(value) {
  return Number.isFinite(value) ? grouped.format(Math.round(value)) : UNKNOWN;
}

/** 1234567 -> "1.23M" */
export function short(value) {
  if (!Number.isFinite(value)) return UNKNOWN;
  for (const [unit, size] of [
    ["T", 1e12],
    ["B", 1e9],
    ["M", 1e6],
    ["K", 1e3],
  ]) {
    if (Math.abs(value) >= size) return `${digits(value / size, 3)}${unit}`;
  }
  return digits(value, 3);
}

/** 4096 -> "4K", 1048576 -> "1M": context lengths count in 1,024s. */
export function contextLength(tokens) {
  if (tokens >= 2 ** 20 && tokens % 2 ** 20 === 0) return `${whole(tokens / 2 ** 20)}M`;
  return tokens >= 1024 && tokens % 1024 === 0 ? `${whole(tokens / 1024)}K` : whole(tokens);
}

/** At most `count` significant digits, without an exponent for everyday sizes. */
export function digits(value, count = 4) {
  if (value === null || !Number.isFinite(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(count - 2).replace("e+", "e");
  return String(Number(value.toPrecision(count)));
}

export function percent(share, places = 0) {
  return Number.isFinite(share) ? `${(share * 100).toFixed(places)}%` : UNKNOWN;
}

export function bytes(value) {
  if (!Number.isFinite(value) || value <= 0) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${digits(value / 2 ** (10 * power), 3)} ${units[power]}`;
}

/** Seconds -> "42 s", "3 min 20 s", "2 h 5 min", "4 d 3 h" */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return UNKNOWN;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

export function ago(atMs) {
  if (!atMs) return UNKNOWN;
  const seconds = (Date.now() - atMs) / 1000;
  return seconds < 2 ? "just now" : `${duration(seconds < 3600 ? seconds : Math.floor(seconds / 60) * 60)} ago`;
}

export function dateTime(atMs) {
  return atMs ? new Date(atMs).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : UNKNOWN;
}

export function clock(atMs) {
  return new Date(atMs).toLocaleTimeString();
}

/** Shards 0,1,2,5 -> "0-2, 5" */
export function ranges(numbers) {
  const parts = [];
  let first = 0;
  for (let index = 1; index <= numbers.length; index++) {
    if (index < numbers.length && numbers[index] === numbers[index - 1] + 1) continue;
    parts.push(first === index - 1 ? `${numbers[first]}` : `${numbers[first]}-${numbers[index - 1]}`);
    first = index;
  }
  return parts.join(", ") || UNKNOWN;
}
