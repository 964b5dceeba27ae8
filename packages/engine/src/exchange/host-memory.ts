import { randomBytes } from "node:crypto";
import koffi from "koffi";
import { exchangeUnavailable } from "./gradient-exchange.js";

const NONCE_BYTES = 16;
const PAGE_BYTES = 4096;
/** Node.js 20 ends the process at a view of more. */
const MOST_BYTES = 2 ** 32;
const OPEN_READ_WRITE = 2;
const PROTECT_READ_WRITE = 3;
const MAP_SHARED = 1;

interface LibC {
  memfdCreate(name: string, flags: number): number;
  truncate(file: number, bytes: number): number;
  open(path: string, flags: number): number;
  close(file: number): number;
  map(address: number, bytes: number, protection: number, flags: number, file: number, offset: number): number;
  unmap(address: number, bytes: number): number;
}

let libC: LibC | undefined;

/** @throws SegueError EXCHANGE_UNAVAILABLE where the C library has no memory files (they are Linux's) */
function loadLibC(): LibC {
  if (libC) return libC;
  try {
    const library = koffi.load("libc.so.6");
    const f = (name: string, result: string, parameters: string[]): never => library.func(name, result, parameters) as never;
    return (libC = {
      memfdCreate: f("memfd_create", "int", ["str", "uint"]),
      truncate: f("ftruncate", "int", ["int", "int64"]),
      open: f("open", "int", ["str", "int"]),
      close: f("close", "int", ["int"]),
      map: f("mmap", "int64", ["int64", "uint64", "int", "int", "int", "int64"]),
      unmap: f("munmap", "int", ["int64", "uint64"]),
    });
  } catch (cause) {
    throw exchangeUnavailable(`processes cannot share memory here: ${String(cause)}`, cause);
  }
}

/**
 * Memory of this host that several processes map. It has no name in any file system: others reach it through the process that made it, and
 * it is gone with the last process that holds it, however those end.
 */
export class HostMemory {
  /** Tells another process of the same user and PID namespace where it is. */
  readonly handle: string;
  /** Behind the nonce; on a page of its own. */
  readonly bytes: Uint8Array;
  readonly address: number;
  readonly #file: number;
  readonly #mapped: { readonly address: number; readonly bytes: number };
  #closed = false;

  private constructor(file: number, bytes: number, handle: string) {
    const whole = PAGE_BYTES + wholePages(bytes);
    const address = loadLibC().map(0, whole, PROTECT_READ_WRITE, MAP_SHARED, file, 0);
    if (address <= 0) {
      loadLibC().close(file);
      throw exchangeUnavailable(`${whole} bytes of shared memory could not be mapped`);
    }
    this.handle = handle;
    this.#file = file;
    this.#mapped = { address, bytes: whole };
    this.address = address + PAGE_BYTES;
    this.bytes = new Uint8Array(koffi.view(BigInt(this.address), bytes));
  }

  /** Zeroed. @throws SegueError EXCHANGE_UNAVAILABLE */
  static create(bytes: number): HostMemory {
    if (bytes > MOST_BYTES)
      throw exchangeUnavailable(`processes share at most ${MOST_BYTES} bytes of memory at once, not ${bytes}`);
    const library = loadLibC();
    const file = library.memfdCreate("segue", 0);
    if (file < 0 || library.truncate(file, PAGE_BYTES + wholePages(bytes)) !== 0) {
      throw exchangeUnavailable(`${bytes} bytes of shared memory are not to be had`);
    }
    const nonce = randomBytes(NONCE_BYTES);
    const memory = new HostMemory(file, bytes, [process.pid, file, bytes, nonce.toString("hex")].join("/"));
    memory.#nonce().set(nonce);
    return memory;
  }

  /** @throws SegueError EXCHANGE_UNAVAILABLE when that process or its memory cannot be reached from here */
  static open(handle: string): HostMemory {
    const [pid, file, bytes, nonce] = handle.split("/");
    const opened = loadLibC().open(`/proc/${pid}/fd/${file}`, OPEN_READ_WRITE);
    if (opened < 0) throw exchangeUnavailable(`the memory of process ${pid} cannot be opened from here`);
    const memory = new HostMemory(opened, Number(bytes), handle);
    // Another PID namespace may have a process of that number.
    if (Buffer.from(memory.#nonce()).toString("hex") === nonce) return memory;
    memory.close();
    throw exchangeUnavailable(`process ${pid} is not the one that shared its memory`);
  }

  /** Nothing may look at `bytes` afterwards. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    loadLibC().unmap(this.#mapped.address, this.#mapped.bytes);
    loadLibC().close(this.#file);
  }

  #nonce(): Uint8Array {
    return new Uint8Array(koffi.view(BigInt(this.#mapped.address), NONCE_BYTES));
  }
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
