import { execFileSync } from "node:child_process";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const NVML = fileURLToPath(new URL("./fake-nvml.cc", import.meta.url));
const GPUS = fileURLToPath(new URL("./fake-gpus.cc", import.meta.url));
const CUDA = fileURLToPath(new URL("../../packages/engine/src/cuda/", import.meta.url));

/** Compiles NVIDIA's management library as far as Segue uses it. @returns its path */
export function buildFakeNvml(folder: string): string {
  return compile(folder, "libfake-nvml.so", [NVML]);
}

/**
 * A folder for LD_LIBRARY_PATH in which the engine `cuda` finds so many GPUs: they describe themselves, hand out memory that is not there
 * and do nothing. Enough to attach, not to train.
 */
export function buildFakeGpus(folder: string, count: number): string {
  const rest = join(folder, "rest.cc");
  const known = readFileSync(GPUS, "utf8");
  const names = new Set(["driver", "compiler", "cublaslt"].flatMap((file) => libraryFunctions(join(CUDA, `${file}.ts`))));
  const others = [...names].filter((name) => !known.includes(`${name}(`));
  writeFileSync(rest, others.map((name) => `extern "C" int ${name}() { return 0; }\n`).join(""));
  const library = compile(folder, "libfake-gpus.so", [GPUS, rest, NVML], [`-DGPUS=${count}`]);
  for (const name of ["libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libnvidia-ml.so.1"]) {
    symlinkSync(library, join(folder, name));
  }
  return folder;
}

function compile(folder: string, fileName: string, sources: readonly string[], options: readonly string[] = []): string {
  const path = join(folder, fileName);
  execFileSync("g++", ["-shared", "-fPIC", ...options, "-o", path, ...sources]);
  return path;
}

/** Functions of NVIDIA's libraries that a source names: whatever the engine asks for by now is there. */
function libraryFunctions(path: string): string[] {
  const source = readFileSync(path, "utf8");
  const plain = [...source.matchAll(/\b(?:cu[A-Z]\w+|nvrtc[A-Z]\w+|cublasLt[A-Z]\w+)/g)].map(([name]) => name);
  const prefixed = [...source.matchAll(/\bf\("([A-Z]\w+)"/g)].map(([, name]) => `cublasLt${name}`);
  return [...plain, ...prefixed];
}
