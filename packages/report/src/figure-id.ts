/** A figure's id from names: what may not be in one becomes a hyphen. */
export function figureId(...names: readonly (string | number)[]): string {
  const id = names
    .join("-")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "")
    .slice(0, 100);
  return /^[a-z]/.test(id) ? id : `figure-${id}`.slice(0, 100);
}
