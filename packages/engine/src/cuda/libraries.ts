import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import koffi, { type LibraryHandle } from "koffi";
import { SegueError } from "@segue/core";

/** Newest first; a driver runs code of its own and of older toolkits. */
const TOOLKIT_VERSIONS = [13, 12] as const;

export function unavailable(message: string, cause?: unknown): SegueError {
  return new SegueError("ENGINE_UNAVAILABLE", message, { status: "FAILED_PRECONDITION", cause });
}

/** Where toolkits are installed beside the loader's own path. */
export function toolkitFolders(env: NodeJS.ProcessEnv): string[] {
  const installed = existsSync("/usr/local") ? readdirSync("/usr/local").filter((name) => name.startsWith("cuda")) : [];
  const roots = [
    env.CUDA_HOME,
    env.CUDA_PATH,
    ...installed
      .sort()
      .reverse()
      .map((name) => join("/usr/local", name)),
  ];
  const machine = process.arch === "arm64" ? "sbsa-linux" : "x86_64-linux";
  return roots.filter((root) => root !== undefined).flatMap((root) => [join(root, "lib64"), join(root, "targets", machine, "lib")]);
}

/**
 * The first of these libraries that loads: by the loader's path, then from the toolkit folders.
 * @throws SegueError ENGINE_UNAVAILABLE saying what to install
 */
function loadFirst(names: readonly string[], folders: readonly string[], missing: string): LibraryHandle {
  let failure: unknown;
  for (const name of names) {
    for (const path of [name, ...folders.map((folder) => join(folder, name)).filter((candidate) => existsSync(candidate))]) {
      try {
        if (path !== name) loadBeside(path);
        return koffi.load(path);
      } catch (cause) {
        failure ??= cause;
      }
    }
  }
  throw unavailable(`${missing} (${names[0]} was looked for in the loader's path, CUDA_HOME and /usr/local/cuda*)`, failure);
}

/** NVRTC looks for its other half by name only, and finds what is loaded already. */
function loadBeside(path: string): void {
  if (!basename(path).startsWith("libnvrtc.")) return;
  const folder = dirname(path);
  const half = readdirSync(folder).find((name) => name.startsWith("libnvrtc-builtins.so."));
  if (half) koffi.load(join(folder, half));
}

/** @throws SegueError ENGINE_UNAVAILABLE */
export function loadDriver(): LibraryHandle {
  return loadFirst(["libcuda.so.1"], [], "no NVIDIA driver: install the driver of the GPU, or start the container with its GPUs");
}

/** A library of the CUDA toolkit. @throws SegueError ENGINE_UNAVAILABLE */
export function loadToolkit(library: "nvrtc" | "cublasLt", env: NodeJS.ProcessEnv): LibraryHandle {
  const names = TOOLKIT_VERSIONS.map((version) => `lib${library}.so.${version}`);
  return loadFirst(
    names,
    toolkitFolders(env),
    `no lib${library}: install the CUDA toolkit ${TOOLKIT_VERSIONS.join(" or ")} or set CUDA_HOME`,
  );
}
