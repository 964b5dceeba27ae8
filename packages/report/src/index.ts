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
export { figuresOf, type Report, type ReportBlock, type ReportSection } from "./report.js";
