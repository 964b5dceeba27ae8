/**
 * Reorders the values so that number `index` is the one a sort would put there, none before it is larger and none behind it smaller
 * (Hoare's selection, linear time on average). Values that are no numbers make the order meaningless.
 * @returns that value
 */
export function selectAt(values: Float32Array, index: number): number {
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const pivot = values[(low + high) >>> 1]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const swapped = values[i]!;
      values[i++] = values[j]!;
      values[j--] = swapped;
    }
    if (index <= j) high = j;
    else if (index >= i) low = i;
    else break;
  }
  return values[index]!;
}
