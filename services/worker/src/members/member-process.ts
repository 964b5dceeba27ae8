import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import type { Readable } from "node:stream";
import type { MemberPlan } from "./member-plans.js";

export interface MemberExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** After stdin, stdout, stderr and Node's own channel. */
const READY_FD = 4;

/** One member as a child process: this program again, with the member's environment. */
export class MemberProcess {
  readonly exited: Promise<MemberExit>;
  /** Where it answers, as soon as it does; undefined when it ends before. */
  readonly ready: Promise<string | undefined>;
  readonly #child: ChildProcess;

  constructor(program: string, { env }: MemberPlan) {
    this.#child = fork(program, {
      env: { ...process.env, ...env, SEGUE_READY_FD: String(READY_FD) },
      // The channel tells the child when this process is gone, in whatever way.
      stdio: ["ignore", "inherit", "inherit", "ipc", "pipe"],
      // A terminal's Ctrl-C goes to the whole process group, and a second signal would end a member that still drains.
      detached: true,
    });
    this.exited = once(this.#child, "exit").then(([code, signal]: unknown[]) => ({ code, signal }) as MemberExit);
    // The pipe ends when the member has said its line, or with the process.
    this.ready = text(this.#child.stdio[READY_FD] as Readable).then((line) =>
      line === "" ? undefined : (JSON.parse(line) as { address: string }).address,
    );
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
  }
}

/** Lets a member end as after SIGTERM when the process that started it is gone. Does nothing in others. */
export function endWithStarter(): void {
  if (!process.channel) return;
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
  // Listening must not keep a finished member alive.
  process.channel.unref();
}
