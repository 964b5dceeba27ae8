import { SegueError } from "@segue/core";

export interface ObjectRecord {
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

/** Named files on another machine or volume. Keys are relative paths with "/". Methods throw the backend's own errors. */
export interface ObjectStore {
  /** As people write it. */
  readonly url: string;
  list(): Promise<string[]>;
  /** A small object; undefined when there is none. */
  read(key: string): Promise<Uint8Array | undefined>;
  /** Writes an object into a new file. */
  download(key: string, path: string): Promise<void>;
  /**
   * Stores a file; an object of that key appears only whole, and only with the size and digest given.
   * @throws SegueError CHECKPOINT_DAMAGED when the file is not what the record says
   */
  upload(key: string, path: string, record: ObjectRecord, signal: AbortSignal): Promise<void>;
  remove(keys: readonly string[]): Promise<void>;
  /** Removes what interrupted uploads left behind. */
  removeUnfinished(): Promise<void>;
  close(): void;
}

/** The file to be uploaded does not have the size or digest that its manifest says. */
export function uploadDamaged(path: string): SegueError {
  return new SegueError("CHECKPOINT_DAMAGED", `${path} does not match the manifest; it is not copied.`, { status: "DATA_LOSS" });
}
