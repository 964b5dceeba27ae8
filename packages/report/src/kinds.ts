import type { Drawing } from "./chart/option.js";
import { tableCsv, type DataTable } from "./data-table.js";
import type { Figure, FigureKindName } from "./figure.js";
import { forgetFit, recallFit } from "./kinds/capacity-fit.js";
import { channelHistogram } from "./kinds/channel-histogram.js";
import { checkpointAccuracy } from "./kinds/checkpoint-accuracy.js";
import { curves } from "./kinds/curves.js";
import { headInputs } from "./kinds/head-inputs.js";
import type { FigureKind } from "./kinds/kind.js";
import { lossByPosition } from "./kinds/loss-by-position.js";
import { passkeyMap } from "./kinds/passkey-map.js";
import { recentAccuracy } from "./kinds/recent-accuracy.js";
import { remembrance } from "./kinds/remembrance.js";
import { retention } from "./kinds/retention.js";
import { stateMoments } from "./kinds/state-moments.js";
import { stateSizes } from "./kinds/state-sizes.js";
import { trainingCurve } from "./kinds/training-curve.js";

const KINDS: { readonly [Name in FigureKindName]: FigureKind<Extract<Figure, { kind: Name }>> } = {
  passkeyMap,
  recentAccuracy,
  checkpointAccuracy,
  lossByPosition,
  trainingCurve,
  retention,
  remembrance,
  stateMoments,
  channelHistogram,
  headInputs,
  recallFit,
  forgetFit,
  stateSizes,
  curves,
};

export function drawingOf(figure: Figure): Drawing {
  return kindOf(figure).drawing(figure);
}

/** The data that a figure was drawn from. */
export function figureTable(figure: Figure): DataTable {
  return kindOf(figure).table(figure);
}

export function figureCsv(figure: Figure): string {
  return tableCsv(figureTable(figure));
}

/** The type of a figure's kind follows from the figure's, which TypeScript cannot say of a table. */
function kindOf(figure: Figure): FigureKind<Figure> {
  return KINDS[figure.kind] as unknown as FigureKind<Figure>;
}
