import type { ExponentialFit, Interval, LineFit, PasskeyCount, Point, RecentAccuracy } from "@segue/core";

/** A figure of a report as plain data; its kind says how it is drawn. All lengths and positions are in tokens. */
export type Figure =
  | PasskeyMapFigure
  | RecentAccuracyFigure
  | CheckpointAccuracyFigure
  | LossByPositionFigure
  | TrainingCurveFigure
  | RetentionFigure
  | RemembranceFigure
  | StateMomentsFigure
  | ChannelHistogramFigure
  | HeadInputsFigure
  | RecallFitFigure
  | ForgetFitFigure
  | StateSizesFigure
  | CurvesFigure;

export type FigureKindName = Figure["kind"];

interface FigureHead {
  /** Names its files and must be unique in a report: lower-case letters, digits, hyphens. */
  readonly id: string;
  readonly title: string;
  /** What there is to see, in a sentence or two: shown below, and read out in place of the picture. */
  readonly caption: string;
}

/** Share of passkeys repeated, by length and depth (paper Fig 2). */
export interface PasskeyMapFigure extends FigureHead {
  readonly kind: "passkeyMap";
  readonly lengths: readonly number[];
  /** Places of the key as shares of the context. */
  readonly depths: readonly number[];
  readonly cells: readonly PasskeyCount[];
}

/** Accuracy on keys in the last r tokens, by length (paper Fig 13 to 15). */
export interface RecentAccuracyFigure extends FigureHead {
  readonly kind: "recentAccuracy";
  readonly entries: readonly RecentAccuracy[];
}

/** Passkey accuracy by length, one curve a checkpoint (paper Fig 8). */
export interface CheckpointAccuracyFigure extends FigureHead {
  readonly kind: "checkpointAccuracy";
  readonly checkpoints: readonly {
    readonly name: string;
    readonly points: readonly { readonly length: number; readonly accuracy: number; readonly interval?: Interval }[];
  }[];
  readonly trainTokens?: number;
}

/** Loss in nats by position, one curve a cure, training length or model (paper Fig 1, 4, 10). */
export interface LossByPositionFigure extends FigureHead {
  readonly kind: "lossByPosition";
  readonly curves: readonly {
    readonly name: string;
    readonly bucketTokens: number;
    readonly losses: readonly (number | null)[];
  }[];
  readonly trainTokens?: number;
  /** The loss beyond which a state counts as collapsed. */
  readonly collapseLoss?: number;
}

/** Training loss by step. */
export interface TrainingCurveFigure extends FigureHead {
  readonly kind: "trainingCurve";
  readonly curves: readonly {
    readonly name: string;
    readonly points: readonly { readonly step: number; readonly loss: number }[];
  }[];
  /** The step of the checkpoint that the report is about. */
  readonly step?: number;
}

/** Values of one head or layer at the positions of a figure's `tokens`. */
export interface Course {
  readonly name: string;
  readonly values: readonly (number | null)[];
}

/** What is left of the first token, a_{1:t}, by head (paper Fig 3). */
export interface RetentionFigure extends FigureHead {
  readonly kind: "retention";
  readonly tokens: readonly number[];
  readonly heads: readonly Course[];
  readonly trainTokens?: number;
}

/** Effective remembrance: how far the prediction moves when only the last t tokens are read (Ruiz and Gu). */
export interface RemembranceFigure extends FigureHead {
  readonly kind: "remembrance";
  readonly curves: readonly {
    readonly name: string;
    readonly points: readonly { readonly start: number; readonly distance: number | null }[];
  }[];
}

/** Mean and variance over time of the states of heads or layers (paper Fig 5, 16, 17). */
export interface StateMomentsFigure extends FigureHead {
  readonly kind: "stateMoments";
  readonly tokens: readonly number[];
  readonly means: readonly Course[];
  /** Names as in `means`. */
  readonly variances: readonly Course[];
  readonly trainTokens?: number;
}

/** Distribution of one head's channels at several places of a text, log count (paper Fig 6). */
export interface ChannelHistogramFigure extends FigureHead {
  readonly kind: "channelHistogram";
  readonly places: readonly {
    readonly tokens: number;
    readonly low: number;
    readonly high: number;
    /** In bins of one width from `low` to `high`. */
    readonly counts: readonly number[];
  }[];
}

/** What enters the recurrence over time: dt, |B|, |x|, by head (paper Fig 7). */
export interface HeadInputsFigure extends FigureHead {
  readonly kind: "headInputs";
  readonly tokens: readonly number[];
  readonly dt: readonly Course[];
  readonly b: readonly Course[];
  readonly x: readonly Course[];
  readonly trainTokens?: number;
}

/** Lengths against state sizes as the laws of core have them: x in millions of floats, y in units of 1,024 tokens. */
interface CapacityFigure extends FigureHead {
  readonly points: readonly Point[];
  /** The paper's points, for comparison. */
  readonly published?: readonly Point[];
}

/** T_recall against the state size, with the exponential fit (paper Fig 9). */
export interface RecallFitFigure extends CapacityFigure {
  readonly kind: "recallFit";
  readonly fit: Pick<ExponentialFit, "base" | "scale" | "offset" | "rSquared"> | null;
}

/** T_forget against the state size, with the linear fit (paper Fig 11). */
export interface ForgetFitFigure extends CapacityFigure {
  readonly kind: "forgetFit";
  readonly fit: Pick<LineFit, "slope" | "intercept" | "rSquared"> | null;
}

/** State size against model size, one series a family (paper Fig 12). */
export interface StateSizesFigure extends FigureHead {
  readonly kind: "stateSizes";
  readonly families: readonly {
    readonly name: string;
    readonly models: readonly { readonly name: string; readonly parameters: number; readonly stateFloats: number }[];
  }[];
}

/** Any curves: what has no kind of its own, such as a sweep of learning rates. */
export interface CurvesFigure extends FigureHead {
  readonly kind: "curves";
  readonly x: CurvesAxis;
  readonly y: CurvesAxis;
  readonly curves: readonly {
    readonly name: string;
    readonly points: readonly { readonly x: number; readonly y: number | null }[];
  }[];
  readonly marks?: readonly { readonly axis: "x" | "y"; readonly at: number; readonly label: string }[];
}

export interface CurvesAxis {
  /** With its unit. */
  readonly title: string;
  readonly scale: "linear" | "log2" | "log10";
  /** How numbers are written: `tokens` as 1Ki, `short` as 1.5M, `percent`, or as they are. */
  readonly format: "tokens" | "short" | "percent" | "plain";
}
