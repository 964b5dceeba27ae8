import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** The repository's root: every script runs there, wherever it was called from. */
export const root = join(import.meta.dirname, "..");

/** The environment with the tools of node_modules first on the path. */
export function toolEnvironment() {
  return { ...process.env, PATH: [join(root, "node_modules", ".bin"), process.env.PATH].join(delimiter) };
}

/** Runs a program in the root with this terminal; returns its exit status. `env` adds to the environment. */
export function run(program, args, env = {}) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: "inherit", env: { ...toolEnvironment(), ...env } });
  if (error) console.error(`error: cannot run ${program}: ${error.message}`);
  return status ?? 1;
}

/** The full path of a program on the path, or undefined. */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  return undefined;
}

/** Seconds since `startedAtMs` with one decimal, for people. */
export function seconds(startedAtMs) {
  return `${((Date.now() - startedAtMs) / 1000).toFixed(1)} s`;
}
