import { pino, type Logger } from "pino";

export type { Logger } from "pino";

const SECRETS = ["token", "bearerToken", "authorization", "password"];

/** JSON lines on stderr, written at once so that the last words of a dying process are not lost. Secrets are redacted by name. */
export function createLogger(service: string, level = "info"): Logger {
  return pino(
    {
      level,
      base: { service, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
    },
    pino.destination({ fd: 2, sync: true }),
  );
}
