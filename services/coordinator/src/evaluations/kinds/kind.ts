/** What an evaluation puts into Redis and the queues (docs/reference/redis.md). */
export interface QueuedEvaluation {
  /** Settings in the evaluation's hash. */
  readonly fields: Readonly<Record<string, string | number>>;
  /** What closing it takes. */
  readonly parent: object;
  readonly cells: readonly QueuedCell[];
}

export interface QueuedCell {
  /** Its name among the evaluation's cells, part of the id of its job. */
  readonly part: string;
  readonly work: object;
}
