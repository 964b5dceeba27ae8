import { ChildProcess } from "node:child_process";
import { Server, Socket } from "node:net";

/** After all tests, for what is closing; also on a busy machine. */
const EXIT_MS = 60_000;

/**
 * Part of every run of mocha (.mocharc.yaml): a run that is done exits. One that does not within a minute of its last test says what holds
 * it, kills the children it left, and fails.
 */
export function mochaGlobalTeardown(): void {
  setTimeout(() => {
    console.error(`error: all tests are done, but this process does not end; what holds it:\n${holders().join("\n")}`);
    for (const handle of activeHandles()) if (handle instanceof ChildProcess) handle.kill("SIGKILL");
    // Behind mocha's own listener, which sets the number of failures.
    process.on("exit", () => (process.exitCode ||= 1));
    process.exit();
  }, EXIT_MS).unref();
}

/** Node has no public call that gives more than names. */
function activeHandles(): unknown[] {
  return (process as unknown as { _getActiveHandles(): unknown[] })._getActiveHandles();
}

function holders(): string[] {
  const details = activeHandles().flatMap((handle) => {
    if (handle instanceof ChildProcess) return [`process ${handle.pid}: ${handle.spawnargs.join(" ").slice(0, 200)}`];
    if (handle instanceof Server) return [`listening on ${JSON.stringify(handle.address())}`];
    if (!(handle instanceof Socket) || handle.remotePort === undefined) return [];
    return [`a socket from port ${handle.localPort ?? "?"} to ${handle.remoteAddress ?? "?"}:${handle.remotePort}`];
  });
  return [process.getActiveResourcesInfo().join(" "), ...details].map((line) => `  ${line}`);
}
