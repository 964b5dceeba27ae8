import { totalmem } from "node:os";

/** Bytes that this process may use: those of the machine, or of its container (cgroup) where that has fewer. */
export function machineMemoryBytes(): number {
  const limit = process.constrainedMemory();
  // Without a limit it is 0, or more than any machine has.
  return limit > 0 ? Math.min(totalmem(), limit) : totalmem();
}
