export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** The normal distribution's 97.5 % point: intervals hold the true share in 95 of 100 cases. */
const Z = 1.959963984540054;

/**
 * Wilson's 95 % score interval of a share, of which `hits` in `trials` were seen (E. B. Wilson, 1927). Unlike the normal interval it is
 * sound for few trials and for shares near 0 and 1.
 * @throws RangeError unless 0 <= hits <= trials and trials > 0
 */
export function wilsonInterval(hits: number, trials: number): Interval {
  if (!(trials > 0 && hits >= 0 && hits <= trials)) throw new RangeError(`${hits} hits in ${trials} trials are no share`);
  const share = hits / trials;
  const scale = 1 + Z ** 2 / trials;
  const centre = (share + Z ** 2 / (2 * trials)) / scale;
  const half = (Z / scale) * Math.sqrt((share * (1 - share)) / trials + Z ** 2 / (4 * trials ** 2));
  // The bounds at the ends are exact, which rounding would miss.
  return { low: hits === 0 ? 0 : centre - half, high: hits === trials ? 1 : centre + half };
}
