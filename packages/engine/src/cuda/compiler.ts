import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { SegueError } from "@segue/core";
import { StringArray } from "./c-strings.js";
import { loadToolkit } from "./libraries.js";

/** Constants that a source is compiled with. */
export type Defines = Readonly<Record<string, number | string>>;

export type CudaSources = ReadonlyMap<string, string>;

/** The CUDA tree; as far from this file in `src` as in `dist`. */
export function readCudaSources(folder = fileURLToPath(new URL("../../cuda/", import.meta.url))): CudaSources {
  const names = readdirSync(folder).filter((name) => /\.cuh?$/.test(name));
  return new Map(names.sort().map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

type Call = (...args: unknown[]) => number;

/** NVRTC with a cache of what it compiled. */
export class KernelCompiler {
  readonly version: string;
  readonly #sources: CudaSources;
  readonly #architecture: string;
  readonly #functions: Record<"create" | "compile" | "cubinSize" | "cubin" | "logSize" | "log", Call>;
  readonly #folder: string | undefined;

  /** @throws SegueError ENGINE_UNAVAILABLE without NVRTC */
  constructor(sources: CudaSources, computeCapability: number, env: NodeJS.ProcessEnv) {
    const library = loadToolkit("nvrtc", env);
    const f = (name: string, parameters: string[]): Call => library.func(name, "int", parameters) as Call;
    this.#functions = {
      create: f("nvrtcCreateProgram", ["void *", "str", "str", "int", "void *", "void *"]),
      compile: f("nvrtcCompileProgram", ["uint64", "int", "void *"]),
      cubinSize: f("nvrtcGetCUBINSize", ["uint64", "void *"]),
      cubin: f("nvrtcGetCUBIN", ["uint64", "void *"]),
      logSize: f("nvrtcGetProgramLogSize", ["uint64", "void *"]),
      log: f("nvrtcGetProgramLog", ["uint64", "void *"]),
    };
    const [major, minor] = [new Int32Array(1), new Int32Array(1)];
    f("nvrtcVersion", ["void *", "void *"])(major, minor);
    this.version = `${major[0]}.${minor[0]}`;
    this.#sources = sources;
    this.#architecture = `sm_${computeCapability}`;
    this.#folder = cacheFolder(env);
  }

  /**
   * Machine code of a source.
   * @throws SegueError KERNEL_BUILD_FAILED with the compiler's log
   */
  cubin(name: string, defines: Defines): Uint8Array {
    const options = [
      `--gpu-architecture=${this.#architecture}`,
      "--std=c++17",
      ...Object.entries(defines).map(([define, value]) => `-D${define}=${value}`),
    ];
    const text = this.#expand(name);
    const key = createHash("sha256")
      .update(JSON.stringify([this.version, options, text]))
      .digest("hex")
      .slice(0, 24);
    const path = this.#folder && join(this.#folder, `${name}.${key}.cubin`);
    if (path && existsSync(path)) return readFileSync(path);
    const cubin = this.#compile(name, text, options);
    // Written beside and moved into place, so that nobody ever reads half a file.
    if (path) {
      writeFileSync(`${path}.${process.pid}`, cubin);
      renameSync(`${path}.${process.pid}`, path);
    }
    return cubin;
  }

  /** The source with what it includes in its place, each file once. */
  #expand(name: string, seen = new Set<string>()): string {
    const text = this.#sources.get(name);
    if (text === undefined) throw new Error(`there is no CUDA source ${name}`);
    return text.replaceAll(/^#include "(.+)"$/gm, (_, included: string) => {
      if (seen.has(included)) return "";
      seen.add(included);
      return this.#expand(included, seen);
    });
  }

  #compile(name: string, text: string, options: readonly string[]): Uint8Array {
    const handle = new BigUint64Array(1);
    const { create, compile, cubinSize, cubin } = this.#functions;
    if (create(handle, text.replaceAll("#pragma once", ""), name, 0, null, null) !== 0) throw buildFailed(name, "no program");
    const program = handle[0]!;
    if (compile(program, options.length, new StringArray(options).pointers) !== 0) throw buildFailed(name, this.#log(program));
    const size = new BigUint64Array(1);
    cubinSize(program, size);
    const code = new Uint8Array(Number(size[0]));
    cubin(program, code);
    return code;
  }

  #log(program: bigint): string {
    const size = new BigUint64Array(1);
    this.#functions.logSize(program, size);
    const log = new Uint8Array(Number(size[0]));
    this.#functions.log(program, log);
    return Buffer.from(log).toString("utf8").replace(/\0.*$/s, "");
  }
}

function buildFailed(name: string, log: string): SegueError {
  return new SegueError("KERNEL_BUILD_FAILED", `NVRTC could not compile ${name}:\n${log}`, { status: "INTERNAL" });
}

/** The user's cache folder, or none where there is none to write to: kernels are then compiled each time. */
function cacheFolder(env: NodeJS.ProcessEnv): string | undefined {
  const folder = resolve(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "segue", "cuda");
  try {
    mkdirSync(folder, { recursive: true });
    return folder;
  } catch {
    return undefined;
  }
}
