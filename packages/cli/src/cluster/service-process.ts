import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { SegueError } from "@segue/core";
import { lastLines } from "./last-lines.js";

export type ServiceKind = "coordinator" | "worker" | "evaluator" | "dashboard";

export interface ServiceExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ServiceOptions {
  readonly kind: ServiceKind;
  /** Name for people, and of the log file. */
  readonly name: string;
  readonly logPath: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

const READY_MS = 120_000;
/** The descriptor that becomes SEGUE_READY_FD: the first after stdin, stdout and stderr. */
const READY_FD = 3;
const SETPRIV = "/usr/bin/setpriv";

/** One service as a child process: `node services/<kind>/dist/main.js`, its output appended to a log file. */
export class ServiceProcess {
  readonly name: string;
  readonly kind: ServiceKind;
  readonly logPath: string;
  /** Where the service answers, as it said itself; empty for those that do not listen. */
  readonly address: string;
  readonly exited: Promise<ServiceExit>;
  readonly #child: ChildProcess;

  private constructor(options: ServiceOptions, child: ChildProcess, address: string) {
    this.name = options.name;
    this.kind = options.kind;
    this.logPath = options.logPath;
    this.address = address;
    this.#child = child;
    this.exited = exitOf(child);
  }

  /**
   * Starts a service and waits until it says that it answers.
   * @throws SegueError NOT_BUILT; SERVICE_FAILED with the last lines of its log when it ends, or says nothing for two minutes
   */
  static async start(options: ServiceOptions): Promise<ServiceProcess> {
    const program = serviceProgram(options.kind);
    const log = await open(options.logPath, "a");
    let child: ChildProcess;
    try {
      const [file, ...args] = endingWithThisProcess([process.execPath, program]);
      child = spawn(file, args, {
        env: { ...process.env, ...options.env, SEGUE_READY_FD: String(READY_FD) },
        stdio: ["ignore", log.fd, log.fd, "pipe"],
        // A terminal's Ctrl-C goes to the whole process group: the cluster alone decides in which order its services end.
        detached: true,
      });
    } finally {
      await log.close();
    }
    try {
      return new ServiceProcess(options, child, await readyAddress(child));
    } catch (cause) {
      child.kill("SIGKILL");
      const lines = await lastLogLines(options.logPath);
      throw new SegueError(
        "SERVICE_FAILED",
        `The ${options.name} did not start: ${cause instanceof Error ? cause.message : String(cause)}. ` +
          `Its log, ${options.logPath}, ends:\n${lines}`,
        { status: "FAILED_PRECONDITION", cause },
      );
    }
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(signal);
  }

  /** SIGTERM, then SIGKILL when it is not gone after graceMs. Idempotent. */
  async stop(graceMs: number): Promise<ServiceExit> {
    this.signal("SIGTERM");
    const killer = setTimeout(() => this.signal("SIGKILL"), graceMs);
    const exit = await this.exited;
    clearTimeout(killer);
    return exit;
  }

  lastLogLines(): Promise<string> {
    return lastLogLines(this.logPath);
  }
}

function serviceProgram(kind: ServiceKind): string {
  const program = fileURLToPath(new URL(`../../../../services/${kind}/dist/main.js`, import.meta.url));
  if (existsSync(program)) return program;
  throw new SegueError("NOT_BUILT", `The ${kind} is not built (${program} is missing). Run: npm run build`, {
    status: "FAILED_PRECONDITION",
  });
}

/** Where the kernel can do it (Linux), a service gets SIGTERM when this process dies in whatever way. */
function endingWithThisProcess(command: [string, ...string[]]): [string, ...string[]] {
  return existsSync(SETPRIV) ? [SETPRIV, "--pdeathsig", "TERM", ...command] : command;
}

async function readyAddress(child: ChildProcess): Promise<string> {
  const pipe = child.stdio[READY_FD] as Readable;
  const timeout = AbortSignal.timeout(READY_MS);
  let text = "";
  pipe.setEncoding("utf8").on("data", (part: string) => (text += part));
  // The pipe ends when the service has said its line, or with the process.
  await Promise.race([
    once(pipe, "end", { signal: timeout }).catch(() => {
      throw new Error(`it was not ready within ${READY_MS / 1000} s`);
    }),
    once(child, "error").then(([error]: Error[]) => {
      throw error ?? new Error("it cannot be started");
    }),
  ]);
  if (text === "") {
    const { code, signal } = await exitOf(child);
    throw new Error(signal ? `it was ended by ${signal}` : `it ended with exit code ${code}`);
  }
  return (JSON.parse(text) as { address: string }).address;
}

async function exitOf(child: ChildProcess): Promise<ServiceExit> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return { code: child.exitCode, signal: child.signalCode };
}

async function lastLogLines(path: string): Promise<string> {
  return lastLines(await readFile(path, "utf8").catch(() => ""));
}
