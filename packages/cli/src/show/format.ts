import { cureKey, type CureSpec } from "@segue/core";

/** Numbers as people read them. All pure. */

export function formatCount(count: number | bigint): string {
  return count.toLocaleString("en-US");
}

/** Three significant digits with K, M, G: 95123 is "95.1K". */
export function formatShort(value: number): string {
  const units = ["", "K", "M", "G", "T"];
  let scaled = value;
  let unit = 0;
  while (Math.abs(scaled) >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${Number(scaled.toPrecision(3))}${units[unit]}`;
}

export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let scaled = bytes;
  let unit = 0;
  while (scaled >= 1023.5 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${Number(scaled.toPrecision(3))} ${units[unit]}`;
}

/** The two largest units: "45 s", "3 min 20 s", "2 h 5 min". */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A measured time of a part of a step; nothing when it is not known yet. */
export function formatStepMs(ms: number | undefined): string {
  return ms === undefined ? "" : String(Number(ms.toPrecision(3)));
}

/** Local date and time to the second, sortable. */
export function formatTime(atMs: number): string {
  const at = new Date(atMs - new Date(atMs).getTimezoneOffset() * 60_000);
  return at.toISOString().slice(0, 19).replace("T", " ");
}

/** The cure as the end of a title; nothing where there is none. */
export function cureText(cure: CureSpec): string {
  return cure.kind === "none" ? "" : ` with ${cureKey(cure)}`;
}
