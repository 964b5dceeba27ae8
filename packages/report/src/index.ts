export type {
  ChannelHistogramFigure,
  CheckpointAccuracyFigure,
  Course,
  CurvesAxis,
  CurvesFigure,
  Figure,
  FigureKindName,
  ForgetFitFigure,
  HeadInputsFigure,
  LossByPositionFigure,
  PasskeyMapFigure,
  RecallFitFigure,
  RecentAccuracyFigure,
  RemembranceFigure,
  RetentionFigure,
  StateMomentsFigure,
  StateSizesFigure,
  TrainingCurveFigure,
} from "./figure.js";
export { finite, tableCsv, type DataTable, type Value } from "./data-table.js";
export { figureBlock, figuresOf, type Report, type ReportBlock, type ReportSection } from "./report.js";
export { figureCsv, figureTable } from "./kinds.js";
export { renderHtml } from "./render/html.js";
export { renderPng } from "./render/png.js";
export { renderSvg } from "./render/svg.js";
export { figureId, withDistinctIds } from "./figure-id.js";
export { reportFiles, type ReportFile } from "./report-files.js";
export { stateFigures } from "./states/state-figures.js";
export { readStates, type StateTrace } from "./states/state-trace.js";
export { formatPercent, formatPlain, formatShort, formatTokens } from "./chart/numbers.js";
