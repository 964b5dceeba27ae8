const LINES = 8;

/** The end of a service's log for people: pino's JSON lines become their level and message, other lines stay as they are. */
export function lastLines(log: string, count = LINES): string {
  return log
    .trimEnd()
    .split("\n")
    .slice(-count)
    .map((line) => `  ${readable(line)}`)
    .join("\n");
}

const LEVELS: Readonly<Record<number, string>> = { 10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal" };

function readable(line: string): string {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch {
    return line;
  }
  if (typeof record !== "object" || record === null || !("msg" in record) || typeof record.msg !== "string") return line;
  const { level, err, reason } = record as { level?: number; err?: { stack?: string }; reason?: string };
  const why = err?.stack ?? reason;
  return `${LEVELS[level ?? 0] ?? "log"}: ${record.msg}${why === undefined ? "" : ` (${why})`}`;
}
