/**
 * Contiguous runs of shards in worker order, in whole placements of `perPlacement` neighbouring shards; numbers of placements differ by at
 * most one: worker k of W gets placements floor(k N / W) up to floor((k + 1) N / W) of N.
 * @returns one ascending list per worker; none is empty as long as there are no more workers than placements
 */
export function assignShards(shards: number, workers: number, perPlacement = 1): number[][] {
  const placements = shards / perPlacement;
  return Array.from({ length: workers }, (_, worker) => {
    const first = perPlacement * Math.floor((worker * placements) / workers);
    const end = perPlacement * Math.floor(((worker + 1) * placements) / workers);
    return Array.from({ length: end - first }, (_, index) => first + index);
  });
}
