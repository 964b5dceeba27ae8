import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { MemberMessage, MemberTask } from "./exchange-member.js";

/** What a member's process runs. */
const FROM_SOURCE = {
  file: fileURLToPath(new URL("./exchange-member.ts", import.meta.url)),
  execArgv: ["--import=tsx", "--conditions=segue-source"],
};

export type GroupTask = Omit<MemberTask, "self" | "diesAfter"> & {
  /** Member and step of a death by SIGKILL. */
  readonly death?: { readonly member: number; readonly step: number };
};

/** Runs one process for each member and gives what each told last; "gone" for one that died. */
export async function runGroup({ death, ...task }: GroupTask, program = FROM_SOURCE): Promise<(MemberMessage | "gone")[]> {
  const { file, execArgv } = program;
  const children = task.shards.map((): ChildProcess => fork(file, { execArgv }));
  const ends = children.map((child) => once(child, "exit"));
  const message = async (child: ChildProcess, end: Promise<unknown>): Promise<MemberMessage | "gone"> => {
    const told = once(child, "message").then(([value]) => value as MemberMessage);
    return Promise.race([told, end.then(() => "gone" as const)]);
  };
  try {
    const offered = children.map((child, self) => {
      const diesAfter = death?.member === self ? { diesAfter: death.step } : {};
      child.send({ ...task, self, ...diesAfter } satisfies MemberTask);
      return message(child, ends[self]!);
    });
    const offers = (await Promise.all(offered)).map((told) => {
      if (told === "gone" || told.type !== "offer") throw new Error(`no offer: ${JSON.stringify(told)}`);
      return told.offer;
    });
    const results = children.map((child, self) => message(child, ends[self]!));
    for (const child of children) child.send(offers);
    const told = await Promise.all(results);
    // One that failed is leaving by itself.
    for (const child of children) if (child.connected) child.send("end", () => undefined);
    await Promise.all(ends);
    return told;
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
}
