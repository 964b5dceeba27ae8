import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { mkdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { Redis } from "ioredis";
import { freePort } from "./free-port.js";

export interface PrivateRedis {
  /** With the password in it: not for logs. */
  readonly url: string;
  /** SIGKILL, as a machine that loses power would; {@link restart} brings it back. */
  kill(): Promise<void>;
  /** Starts it again on the same port and data. @throws SegueError REDIS_FAILED */
  restart(): Promise<void>;
  /** Lets Redis write its data out and end. Idempotent. */
  close(): Promise<void>;
}

/** On a busy machine; one that ends is noticed at once. */
const START_MS = 120_000;
const STOP_MS = 10_000;
const PORT_ATTEMPTS = 3;

/**
 * Starts a Redis for this process alone: a free port on 127.0.0.1, a random password, an append-only file in `dir` synced every second,
 * and no eviction. It ends with this process, also with a killed one where `setpriv` exists (Linux).
 * @throws SegueError REDIS_MISSING naming the package to install, REDIS_FAILED with Redis' own words
 */
export async function startPrivateRedis(options: { dir: string }): Promise<PrivateRedis> {
  const redisServer = findProgram("redis-server");
  if (!redisServer) {
    throw new SegueError("REDIS_MISSING", "redis-server is not installed. Install the package redis-server, or set REDIS_URL.", {
      status: "FAILED_PRECONDITION",
    });
  }
  await mkdir(options.dir, { recursive: true });
  const password = randomBytes(24).toString("hex");
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const server = launch(redisServer, redisConfig(options.dir, port, password));
    const url = `redis://:${password}@127.0.0.1:${port}`;
    try {
      await answering(server, url);
      return privateRedis(server, url, () => launch(redisServer, redisConfig(options.dir, port, password)));
    } catch (error) {
      await stop(server.child);
      // Somebody may have taken the port in between.
      if (attempt < PORT_ATTEMPTS && server.output().includes("Address already in use")) continue;
      throw startFailure(server, error);
    }
  }
}

function privateRedis(first: Launched, url: string, launchAgain: () => Launched): PrivateRedis {
  let server = first;
  return {
    url,
    async kill() {
      server.child.kill("SIGKILL");
      await ended(server.child);
    },
    async restart() {
      server = launchAgain();
      await answering(server, url).catch((error: unknown) => {
        throw startFailure(server, error);
      });
    },
    close: () => stop(server.child),
  };
}

function startFailure(server: Launched, cause: unknown): SegueError {
  const message = `redis-server did not start: ${lastLines(server.output())}`;
  return new SegueError("REDIS_FAILED", message, { status: "UNAVAILABLE", cause });
}

interface Launched {
  readonly child: ChildProcess;
  output(): string;
}

function launch(redisServer: string, config: string): Launched {
  const setpriv = findProgram("setpriv");
  // The kernel sends SIGTERM when this process dies in whatever way.
  const [program, ...args] = setpriv ? [setpriv, "--pdeathsig", "TERM", redisServer, "-"] : [redisServer, "-"];
  // Detached: a terminal's Ctrl-C must not reach it before the services that still need it have ended.
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
  const killChild = (): void => void child.kill("SIGTERM");
  process.once("exit", killChild);
  child.once("exit", () => process.off("exit", killChild));
  let output = "";
  const collect = (text: Buffer): void => {
    output = (output + text.toString()).slice(-4_000);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  child.on("error", (error) => collect(Buffer.from(error.message)));
  // A child that dies before it has read its configuration breaks the pipe; its exit is what gets reported.
  child.stdin.on("error", () => undefined);
  child.stdin.end(config);
  return { child, output: () => output };
}

function redisConfig(dir: string, port: number, password: string): string {
  return [
    "bind 127.0.0.1",
    `port ${port}`,
    `requirepass ${password}`,
    `dir ${JSON.stringify(dir)}`,
    "daemonize no",
    "appendonly yes",
    "appendfsync everysec",
    'save ""',
    "maxmemory-policy noeviction",
    "",
  ].join("\n");
}

async function answering(server: Launched, url: string): Promise<void> {
  const redis = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: null });
  redis.on("error", () => undefined);
  try {
    const exited = once(server.child, "exit").then(() => {
      throw new Error("redis-server exited");
    });
    const timeout = new AbortController();
    const expired = sleep(START_MS, undefined, { signal: timeout.signal }).then(() => {
      throw new Error(`no PONG within ${START_MS} ms`);
    });
    expired.catch(() => undefined);
    exited.catch(() => undefined);
    await Promise.race([redis.ping(), exited, expired]);
    timeout.abort();
  } finally {
    redis.disconnect();
  }
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill("SIGTERM");
  const killer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  await ended(child);
  clearTimeout(killer);
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  await once(child, "exit");
}

function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/bin", "/usr/bin"];
  return folders
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-3).join(" | ");
}
