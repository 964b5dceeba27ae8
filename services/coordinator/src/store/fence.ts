/** Whether this process may still write to its store. */
export interface StoreFence {
  /** @throws SegueError STORE_LOCKED when another process has the store now */
  verify(): Promise<void>;
}
