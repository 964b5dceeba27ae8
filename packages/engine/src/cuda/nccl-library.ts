import koffi, { type LibraryHandle } from "koffi";
import { SegueError } from "@segue/core";
import { exchangeUnavailable } from "../exchange/gradient-exchange.js";

export const UNIQUE_ID_BYTES = 128;

/** ncclResult_t: everything else is an error. */
export const NCCL_SUCCESS = 0;
export const NCCL_IN_PROGRESS = 7;

/** ncclUint8: what is exchanged is only moved, never added, so bytes do. */
const BYTES = 1;
/** From this version on communicators need not block, so that they can be given up. */
const LEAST_VERSION = 21400;
const CONFIG_MAGIC = 0xcafebeef;
const CONFIG_UNDEFINED = -0x8000_0000;

type Result = number;

/** NCCL through its C interface; communicators are 64-bit addresses. */
export interface Nccl {
  /** For example 22304. */
  readonly version: number;
  uniqueId(): Uint8Array;
  /** Starts a communicator that does not block. @returns its address */
  init(id: Uint8Array, ranks: number, rank: number): number;
  /** The state of what was started last. */
  progress(communicator: number): Result;
  groupStart(): Result;
  groupEnd(): Result;
  send(address: number, bytes: number, peer: number, communicator: number, stream: number): Result;
  receive(address: number, bytes: number, peer: number, communicator: number, stream: number): Result;
  abort(communicator: number): Result;
  describe(result: Result): string;
}

/** 22809 is "2.28.9". */
export function versionText(version: number): string {
  return [Math.floor(version / 10000), Math.floor(version / 100) % 100, version % 100].join(".");
}

/** For example "2.28.9"; empty where NCCL does not load. */
export function ncclVersion(path?: string): string {
  try {
    return versionText(loadNccl(path).version);
  } catch (error) {
    if (error instanceof SegueError) return "";
    throw error;
  }
}

export function ncclFailed(what: string, cause?: unknown): SegueError {
  return new SegueError("NCCL_FAILED", what, { status: "UNAVAILABLE", cause });
}

/**
 * Loads NCCL from `path`, else by the loader's own path.
 * @throws SegueError EXCHANGE_UNAVAILABLE without the library, or when it is too old
 */
export function loadNccl(path?: string): Nccl {
  const library = openLibrary(path === undefined ? ["libnccl.so.2", "libnccl.so"] : [path]);
  const id = koffi.struct({ internal: koffi.array("uint8", UNIQUE_ID_BYTES) });
  const getVersion = library.func("ncclGetVersion", "int", ["void *"]) as (into: Int32Array) => Result;
  const getUniqueId = library.func("ncclGetUniqueId", "int", ["void *"]) as (into: Uint8Array) => Result;
  const initRank = library.func("ncclCommInitRankConfig", "int", ["void *", "int", id, "int", "void *"]) as (
    into: BigUint64Array,
    ranks: number,
    id: { internal: number[] },
    rank: number,
    config: Uint8Array,
  ) => Result;
  const getProgress = library.func("ncclCommGetAsyncError", "int", ["uint64", "void *"]) as (
    communicator: number,
    into: Int32Array,
  ) => Result;
  const transfer = ["uint64", "size_t", "int", "int", "uint64", "uint64"];
  type Transfer = (address: number, count: number, type: number, peer: number, communicator: number, stream: number) => Result;
  const send = library.func("ncclSend", "int", transfer) as Transfer;
  const receive = library.func("ncclRecv", "int", transfer) as Transfer;
  const describe = library.func("ncclGetErrorString", "str", ["int"]) as (result: Result) => string;

  const demand = (result: Result, what: string): void => {
    if (result !== NCCL_SUCCESS && result !== NCCL_IN_PROGRESS) throw ncclFailed(`${what}: ${describe(result)}`);
  };
  const word = new Int32Array(1);
  demand(getVersion(word), "ncclGetVersion");
  const version = word[0] ?? 0;
  if (version < LEAST_VERSION) throw exchangeUnavailable(`NCCL is version ${version}, at least ${LEAST_VERSION} is needed`);
  return {
    version,
    uniqueId() {
      const bytes = new Uint8Array(UNIQUE_ID_BYTES);
      demand(getUniqueId(bytes), "ncclGetUniqueId");
      return bytes;
    },
    init(uniqueId, ranks, rank) {
      const into = new BigUint64Array(1);
      demand(initRank(into, ranks, { internal: [...uniqueId] }, rank, nonBlocking(version)), "ncclCommInitRankConfig");
      return Number(into[0]);
    },
    progress(communicator) {
      const state = new Int32Array(1);
      const result = getProgress(communicator, state);
      return result === NCCL_SUCCESS ? (state[0] ?? 0) : result;
    },
    groupStart: library.func("ncclGroupStart", "int", []) as () => Result,
    groupEnd: library.func("ncclGroupEnd", "int", []) as () => Result,
    send: (address, bytes, peer, communicator, stream) => send(address, bytes, BYTES, peer, communicator, stream),
    receive: (address, bytes, peer, communicator, stream) => receive(address, bytes, BYTES, peer, communicator, stream),
    abort: library.func("ncclCommAbort", "int", ["uint64"]) as (communicator: number) => Result,
    describe,
  };
}

/** The version that the configuration is written for; later libraries give what was added since its default. */
const CONFIG_VERSION = 21700;

/** ncclConfig_t as of 2.17. */
function nonBlocking(version: number): Uint8Array {
  const bytes = new ArrayBuffer(48);
  const view = new DataView(bytes);
  const isLittleEndian = true;
  view.setBigUint64(0, BigInt(bytes.byteLength), isLittleEndian);
  view.setUint32(8, CONFIG_MAGIC, isLittleEndian);
  view.setUint32(12, Math.min(version, CONFIG_VERSION), isLittleEndian);
  view.setInt32(16, 0, isLittleEndian); // blocking
  for (const offset of [20, 24, 28]) view.setInt32(offset, CONFIG_UNDEFINED, isLittleEndian); // cgaClusterSize, minCTAs, maxCTAs
  // After the pointer netName: splitShare, and what was padding before it became trafficClass.
  for (const offset of [40, 44]) view.setInt32(offset, CONFIG_UNDEFINED, isLittleEndian);
  return new Uint8Array(bytes);
}

function openLibrary(names: readonly string[]): LibraryHandle {
  let failure: unknown;
  for (const name of names) {
    try {
      return koffi.load(name);
    } catch (cause) {
      failure ??= cause;
    }
  }
  throw exchangeUnavailable(
    `no NCCL: ${names[0]} does not load (${String(failure)}); install libnccl2 or set SEGUE_NCCL_LIB`,
    failure,
  );
}
