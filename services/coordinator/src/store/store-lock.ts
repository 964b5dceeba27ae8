import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { SegueError } from "@segue/core";
import type { StoreFence } from "./fence.js";
import { freeBytes, isOutOfSpace, storeFull } from "./storage-trouble.js";

export interface StoreLock extends StoreFence {
  /** Gives the store up. Idempotent. */
  release(): Promise<void>;
}

interface Lease {
  readonly token: string;
  readonly host: string;
  readonly pid: number;
  /** Tells a process from an earlier one of the same number, as containers often have. */
  readonly processToken: string;
  readonly renewedAtMs: number;
}

const LEASE_MS = 10_000;
const RENEW_MS = 2_000;
const PROCESS_TOKEN = randomUUID();

/**
 * Takes the lease on a store folder and renews it until released. A lease ends when its process is dead (same machine) or has not renewed
 * it for 10 s (other machines).
 * @param onLost called when another process took the lease, because this one was stopped for too long: it must write no more
 * @throws SegueError STORE_LOCKED naming the holder, STORE_FULL
 */
export async function lockStore(store: string, onLost: (error: SegueError) => void): Promise<StoreLock> {
  await mkdir(store, { recursive: true });
  const path = join(store, "lock");
  const token = randomUUID();
  await acquire(path, token, store);

  let renewal: Promise<void> = Promise.resolve();
  const renew = async (): Promise<void> => {
    const holder = await renewLease(path, token);
    if (holder?.token !== token) throw locked(store, holder);
  };
  const timer = setInterval(() => {
    renewal = renewal.then(renew).catch((error: unknown) => {
      clearInterval(timer);
      onLost(error instanceof SegueError ? error : new SegueError("STORE_LOCKED", `Cannot renew ${path}.`, { cause: error }));
    });
  }, RENEW_MS);
  timer.unref();

  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    clearInterval(timer);
    await renewal;
    if ((await readLease(path))?.token === token) await rm(path, { force: true });
  };
  const verify = async (): Promise<void> => {
    const holder = await readLease(path);
    if (holder?.token !== token) throw locked(store, holder);
  };
  return { verify, release: () => (released ??= release()) };
}

async function acquire(path: string, token: string, store: string): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    if (await createExclusively(path, leaseText(token))) return;
    const holder = await readLease(path);
    if (holder && isAlive(holder)) throw locked(store, holder);
    await removeStale(path, holder);
  }
  throw locked(store, await readLease(path));
}

/**
 * Renews in place: the text always has the same length, so a full disk does not matter. A file that another process has put in this
 * one's place is not touched.
 * @returns the lease that was there
 */
async function renewLease(path: string, token: string): Promise<Lease | undefined> {
  const file = await open(path, "r+").catch((error: unknown) => {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  });
  try {
    const holder = parseLease((await file?.readFile("utf8")) ?? "");
    if (holder?.token === token) {
      // Some file systems need space even for this. Until another process takes the lease it is still this one's.
      await file?.write(leaseText(token), 0).catch(unlessOutOfSpace);
      await file?.sync();
    }
    return holder;
  } finally {
    await file?.close();
  }
}

/** A link appears with its whole content, or not at all when the name is taken. */
async function createExclusively(path: string, text: string): Promise<boolean> {
  const draft = `${path}.${randomUUID()}`;
  try {
    await writeFile(draft, text, { flush: true });
    await link(draft, path);
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    if (isOutOfSpace(error)) throw storeFull(path, await freeBytes(dirname(path)), error);
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/** Only one of several can move the file away; one that moved a lease just taken by another puts it back. */
async function removeStale(path: string, stale: Lease | undefined): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return;
    throw error;
  }
  const moved = await readLease(aside);
  try {
    if (moved && moved.token !== stale?.token) await link(aside, path);
  } catch (error) {
    // A third one was quicker; the one whose lease this is will find out when it renews.
    if (!hasCode(error, "EEXIST")) throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

function isAlive(lease: Lease): boolean {
  if (lease.host === hostname()) {
    if (lease.pid === process.pid) return lease.processToken === PROCESS_TOKEN;
    if (!processExists(lease.pid)) return false;
  }
  return Date.now() - lease.renewedAtMs < LEASE_MS;
}

function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

function leaseText(token: string): string {
  const lease: Lease = { token, host: hostname(), pid: process.pid, processToken: PROCESS_TOKEN, renewedAtMs: Date.now() };
  return JSON.stringify(lease);
}

/** undefined when there is none or its writer died while writing it. */
async function readLease(path: string): Promise<Lease | undefined> {
  try {
    return parseLease(await readFile(path, "utf8"));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

function parseLease(text: string): Lease | undefined {
  try {
    return JSON.parse(text) as Lease;
  } catch {
    return undefined;
  }
}

function locked(store: string, holder: Lease | undefined): SegueError {
  const who = holder ? `process ${holder.pid} on ${holder.host}` : "another process";
  return new SegueError("STORE_LOCKED", `The store ${store} is in use by ${who}; a store has one coordinator.`, {
    status: "FAILED_PRECONDITION",
  });
}

function unlessOutOfSpace(error: unknown): void {
  if (!isOutOfSpace(error)) throw error;
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}
