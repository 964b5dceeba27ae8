import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { SegueError } from "@segue/core";

const run = promisify(execFile);

/** The C++ tree; as far from this file in `src` as in `dist`. */
const SOURCES = fileURLToPath(new URL("../../../native/", import.meta.url));

/**
 * No fast-math: it would let the compiler reorder sums. `nodelete`: helper threads may still be asleep in the library when the process
 * exits, and would wake up in unmapped code.
 */
const COMPILE_FLAGS = [
  ...["-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden"],
  ...["-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math"],
];
const LINK_FLAGS = ["-shared", "-pthread", ...(process.platform === "linux" ? ["-Wl,-z,nodelete"] : [])];

/** Flags per variant; the C++ side decides which of them a processor can run. */
const VARIANT_FLAGS: Readonly<Record<string, readonly string[]>> =
  process.arch === "x64"
    ? {
        baseline: [],
        avx2: ["-mavx2", "-mfma"],
        avx512: ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
      }
    : { baseline: [] };

function unavailable(reason: string, cause?: unknown): SegueError {
  return new SegueError("ENGINE_UNAVAILABLE", reason, { status: "FAILED_PRECONDITION", cause });
}

/**
 * The shared library of the CPU kernels: the one that `SEGUE_NATIVE_LIB` names, else the cached build of these sources by this
 * compiler, else a new build.
 * @throws SegueError ENGINE_UNAVAILABLE, with a sentence that says what is missing
 */
export async function nativeLibrary(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const prebuilt = env.SEGUE_NATIVE_LIB;
  if (prebuilt) {
    if (!existsSync(prebuilt)) throw unavailable(`SEGUE_NATIVE_LIB names ${prebuilt}, which does not exist`);
    return prebuilt;
  }
  const compiler = env.CXX ?? "c++";
  const version = await compilerVersion(compiler);
  const folder = join(cacheFolder(env), buildKey(version));
  const library = join(folder, "libsegue-cpu.so");
  if (!existsSync(library)) await build(compiler, folder);
  return library;
}

async function compilerVersion(compiler: string): Promise<string> {
  try {
    return (await run(compiler, ["--version"])).stdout;
  } catch (e) {
    throw unavailable(`no C++ compiler: "${compiler}" does not run; install the package g++ or set SEGUE_NATIVE_LIB`, e);
  }
}

/** Names a build by everything that went into it. */
function buildKey(compilerVersion: string): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([compilerVersion, process.platform, process.arch, COMPILE_FLAGS, LINK_FLAGS, VARIANT_FLAGS]));
  for (const name of sourceNames()) hash.update(name).update(readFileSync(join(SOURCES, name)));
  return hash.digest("hex").slice(0, 24);
}

function sourceNames(): string[] {
  return readdirSync(SOURCES)
    .filter((name) => /\.(cc|h)$/.test(name))
    .sort();
}

/** The user's cache folder, or `.segue` where there is none to write to. */
function cacheFolder(env: NodeJS.ProcessEnv): string {
  const candidates = [env.XDG_CACHE_HOME || join(homedir(), ".cache"), ".segue/cache"];
  for (const candidate of candidates) {
    const folder = resolve(candidate, "segue", "native");
    try {
      mkdirSync(folder, { recursive: true });
      accessSync(folder, constants.W_OK);
      return folder;
    } catch {
      continue;
    }
  }
  throw unavailable(`no folder to keep compiled kernels in: neither ${candidates.join(" nor ")} can be written`);
}

/** Builds beside `folder` and moves the result into place, so that nobody ever sees half a library. */
async function build(compiler: string, folder: string): Promise<void> {
  const workshop = mkdtempSync(`${folder}.`);
  try {
    const units = [
      { source: "cpu.cc", object: "cpu.o", flags: [] as readonly string[] },
      { source: "pool.cc", object: "pool.o", flags: [] },
      ...Object.entries(VARIANT_FLAGS).map(([variant, flags]) => ({
        source: "variant.cc",
        object: `${variant}.o`,
        flags: [`-DSEGUE_VARIANT=${variant}`, ...flags],
      })),
    ];
    await Promise.all(
      units.map(({ source, object, flags }) =>
        run(compiler, [...COMPILE_FLAGS, ...flags, "-c", join(SOURCES, source), "-o", join(workshop, object)]),
      ),
    );
    const objects = units.map(({ object }) => join(workshop, object));
    await run(compiler, [...LINK_FLAGS, ...objects, "-o", join(workshop, "libsegue-cpu.so")]);
    for (const object of objects) rmSync(object);
    renameSync(workshop, folder);
  } catch (e) {
    // Another process may have built the same thing meanwhile.
    if (existsSync(join(folder, "libsegue-cpu.so"))) return;
    throw unavailable(`${compiler} could not compile the CPU kernels: ${firstError(e)}`, e);
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
}

function firstError(e: unknown): string {
  const text = (e as { stderr?: string }).stderr ?? String(e);
  return text.split("\n").find((line) => line.includes("error")) ?? text.split("\n")[0] ?? "";
}
