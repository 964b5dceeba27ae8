/**
 * Contiguous runs of shards in worker order, sizes differing by at most one: worker k of W gets floor(k S / W) up to floor((k + 1) S / W).
 * @returns one ascending list per worker; none is empty as long as workers <= shards
 */
export function assignShards(shards: number, workers: number): number[][] {
  return Array.from({ length: workers }, (_, worker) => {
    const first = Math.floor((worker * shards) / workers);
    const end = Math.floor(((worker + 1) * shards) / workers);
    return Array.from({ length: end - first }, (_, index) => first + index);
  });
}
