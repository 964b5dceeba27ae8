export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Fit {
  /** Share of the variance of y that the curve explains; 1 when it goes through every point. */
  readonly rSquared: number;
  /** y less the curve, in the order of the points. */
  readonly residuals: readonly number[];
}

/** y = slope x + intercept */
export interface LineFit extends Fit {
  readonly slope: number;
  readonly intercept: number;
}

/** y = scale (base^x - 1) + offset */
export interface ExponentialFit extends Fit {
  readonly base: number;
  readonly scale: number;
  readonly offset: number;
}

/** Ordinary least squares. @throws RangeError for fewer than two different x */
export function fitLine(points: readonly Point[]): LineFit {
  const meanX = mean(points.map(({ x }) => x));
  const meanY = mean(points.map(({ y }) => y));
  const spread = points.reduce((sum, { x }) => sum + (x - meanX) ** 2, 0);
  if (!(spread > 0)) throw new RangeError("a line takes points at two different x at least");
  const slope = points.reduce((sum, { x, y }) => sum + (x - meanX) * (y - meanY), 0) / spread;
  const intercept = meanY - slope * meanX;
  return { slope, intercept, ...quality(points, (x) => slope * x + intercept) };
}

/** Bases tried, as logarithms: growth by a ten-thousandth to twentyfold for each unit of x. */
const LOG_BASES = { from: 1e-4, to: 3, steps: 400 } as const;
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * Non-linear least squares of the paper's second law (paper.md section 5). For a given base the rest is a line in base^x - 1, so only the
 * base is searched: over a grid, then by golden section around its best.
 * @throws RangeError for fewer than three different x
 */
export function fitExponential(points: readonly Point[]): ExponentialFit {
  if (new Set(points.map(({ x }) => x)).size < 3) throw new RangeError("an exponential takes points at three different x at least");
  const fitFor = (logBase: number): LineFit => fitLine(points.map(({ x, y }) => ({ x: Math.expm1(logBase * x), y })));
  const error = (logBase: number): number => fitFor(logBase).residuals.reduce((sum, residual) => sum + residual ** 2, 0);
  const { from, to, steps } = LOG_BASES;
  const step = (to - from) / steps;
  let best = from;
  for (let index = 1; index <= steps; index++) if (error(from + index * step) < error(best)) best = from + index * step;
  const logBase = goldenSection(error, Math.max(from, best - step), best + step);
  const { slope: scale, intercept: offset, rSquared, residuals } = fitFor(logBase);
  return { base: Math.exp(logBase), scale, offset, rSquared, residuals };
}

/** Where a function with one minimum between two bounds has it. */
function goldenSection(value: (at: number) => number, from: number, to: number): number {
  let [low, high] = [from, to];
  while (high - low > 1e-10) {
    const width = GOLDEN * (high - low);
    if (value(high - width) < value(low + width)) high = low + width;
    else low = high - width;
  }
  return (low + high) / 2;
}

function quality(points: readonly Point[], curve: (x: number) => number): Fit {
  const residuals = points.map(({ x, y }) => y - curve(x));
  const meanY = mean(points.map(({ y }) => y));
  const total = points.reduce((sum, { y }) => sum + (y - meanY) ** 2, 0);
  const unexplained = residuals.reduce((sum, residual) => sum + residual ** 2, 0);
  return { rSquared: total > 0 ? 1 - unexplained / total : 1, residuals };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
