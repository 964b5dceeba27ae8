import { SegueError, type Violation } from "@segue/core";
import { closest } from "fastest-levenshtein";
import { z } from "zod";

/** host:port; the host may be an IPv6 address in brackets. Port 0 takes a free port. */
export const addressSetting = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^\s:[\]]+):\d{1,5}$/, "must be host:port, for example 127.0.0.1:7070");

/** A whole number written in decimal. */
export const wholeNumberSetting = z
  .string()
  .regex(/^\d{1,15}$/, "must be a whole number")
  .transform(Number);

/** Milliseconds that something may take: at least one, at most a day. */
const timeoutSetting = wholeNumberSetting.refine((ms) => ms > 0 && ms <= 86_400_000, "must be 1 to 86400000 milliseconds");

const fileSetting = z.string().min(1);

/** Every setting of every service: its name and form. Services pick theirs and add defaults. docs/reference/environment.md explains them. */
export const settings = {
  SEGUE_LISTEN: addressSetting,
  SEGUE_ADVERTISE: addressSetting,
  SEGUE_COORDINATOR: addressSetting,
  SEGUE_STORE: fileSetting,
  SEGUE_CHECKPOINTS: fileSetting,
  SEGUE_S3_ENDPOINT: z.url({ protocol: /^https?$/, error: "must be a URL, for example https://s3.example.org" }),
  SEGUE_CHECKPOINTS_TIMEOUT_MS: timeoutSetting,
  SEGUE_EVALUATION_LOCK_MS: timeoutSetting,
  SEGUE_REDIS_TIMEOUT_MS: timeoutSetting,
  REDIS_URL: z.string().regex(/^rediss?:\/\//, "must be redis://host:port or rediss://host:port"),
  SEGUE_TLS_CERT: fileSetting,
  SEGUE_TLS_KEY: fileSetting,
  SEGUE_TLS_CA: fileSetting,
  SEGUE_TLS_SERVER_NAME: z.string().regex(/^[A-Za-z0-9.-]{1,253}$/, "must be a host name"),
  SEGUE_TOKEN_FILE: fileSetting,
  SEGUE_NAME: z.string().regex(/^[A-Za-z0-9._-]{1,100}$/, "must be 1 to 100 letters, digits, dots, dashes or underscores"),
  SEGUE_ENGINE: z.enum(["auto", "cuda", "cpu", "tfjs"]),
  SEGUE_THREADS: wholeNumberSetting,
  SEGUE_GPU: z.union([z.literal("all"), wholeNumberSetting], { error: "must be all, or the number of a GPU counted from 0" }),
  SEGUE_NATIVE_LIB: fileSetting,
  SEGUE_NCCL_LIB: fileSetting,
  SEGUE_CUDA_RECOMPUTE: z.string().regex(/^(auto|layers|[1-9][0-9]{1,6})$/, "must be auto, layers or a number of MiB"),
  SEGUE_CPU_VARIANT: z.enum(["avx512", "avx2", "baseline"]),
  SEGUE_HEARTBEAT_MS: wholeNumberSetting,
  SEGUE_LOG_LEVEL: z.enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"]),
  SEGUE_METRICS_LISTEN: addressSetting,
  SEGUE_READY_FD: wholeNumberSetting,
  SEGUE_FAULTS: z.string(),
} as const;

/** What every service reads: `z.object({ ...commonSettings, ... })`. */
export const commonSettings = {
  SEGUE_TLS_CERT: settings.SEGUE_TLS_CERT.optional(),
  SEGUE_TLS_KEY: settings.SEGUE_TLS_KEY.optional(),
  SEGUE_TLS_CA: settings.SEGUE_TLS_CA.optional(),
  SEGUE_TLS_SERVER_NAME: settings.SEGUE_TLS_SERVER_NAME.optional(),
  SEGUE_TOKEN_FILE: settings.SEGUE_TOKEN_FILE.optional(),
  SEGUE_LOG_LEVEL: settings.SEGUE_LOG_LEVEL.default("info"),
  SEGUE_METRICS_LISTEN: settings.SEGUE_METRICS_LISTEN.optional(),
  SEGUE_READY_FD: settings.SEGUE_READY_FD.optional(),
} as const;

/**
 * Reads a service's settings from the environment; an empty variable counts as absent. Settings of the other services are ignored, so
 * that one environment can serve all.
 * @throws SegueError SETTINGS_INVALID with one violation per variable that is unknown (naming the nearest known one) or malformed
 */
export function readSettings<T extends z.ZodRawShape>(
  schema: z.ZodObject<T>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): z.output<z.ZodObject<T>> {
  const present = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const known = [...new Set([...Object.keys(settings), ...Object.keys(schema.shape)])];
  const violations: Violation[] = Object.keys(present)
    .filter((name) => name.startsWith("SEGUE_") && !known.includes(name))
    .map((name) => ({ field: name, description: `unknown setting; did you mean ${closest(name, known)}?` }));
  const parsed = schema.safeParse(present);
  if (!parsed.success) {
    violations.push(...parsed.error.issues.map((issue) => ({ field: issue.path.join("."), description: issue.message })));
  }
  if (violations.length > 0 || !parsed.success) {
    const list = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
    throw new SegueError("SETTINGS_INVALID", `The environment is not right: ${list}`, { violations });
  }
  return parsed.data;
}
