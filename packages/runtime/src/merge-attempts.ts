/**
 * Joins the training curves of a job's attempts, oldest first. An attempt continues from a checkpoint, so what an earlier one recorded at or
 * after the later one's first step was rolled back and is left out.
 */
export function mergeAttempts<P extends { readonly step: number }>(attempts: readonly (readonly P[])[]): P[] {
  const merged: P[] = [];
  for (const attempt of attempts) {
    for (const point of attempt) {
      while (merged.length > 0 && (merged.at(-1)?.step ?? 0) >= point.step) merged.pop();
      merged.push(point);
    }
  }
  return merged;
}
