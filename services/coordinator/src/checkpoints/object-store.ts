import { SegueError } from "@segue/core";

export interface ObjectRecord {
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
}

/**
 * Named files on another machine or volume. Keys are relative paths with "/". Methods throw the backend's own errors; one whose other side
 * does not answer fails after a while.
 */
export interface ObjectStore {
  /** As people write it. */
  readonly url: string;
  list(): Promise<StoredObject[]>;
  /** A small object; undefined when there is none. */
  read(key: string): Promise<Uint8Array | undefined>;
  /** Writes an object into a new file. @returns false when there is no such object; the file may be there then, too */
  download(key: string, path: string): Promise<boolean>;
  /**
   * Stores a file; an object of that key appears only whole, and only with the size and digest given.
   * @throws SegueError CHECKPOINT_DAMAGED when the file is not what the record says
   */
  upload(key: string, path: string, record: ObjectRecord, signal: AbortSignal): Promise<void>;
  remove(keys: readonly string[]): Promise<void>;
  /** Removes what interrupted uploads left behind. */
  removeUnfinished(): Promise<void>;
  /** Ends calls that are under way, where that is possible. */
  close(): void;
}

/** The file to be uploaded does not have the size or digest that its manifest says. */
export function uploadDamaged(path: string): SegueError {
  return new SegueError("CHECKPOINT_DAMAGED", `${path} does not match the manifest; it is not copied.`, { status: "DATA_LOSS" });
}
