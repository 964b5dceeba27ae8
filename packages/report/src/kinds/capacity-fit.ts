import { CAPACITY_UNITS, type Point } from "@segue/core";
import { curveChart, type Curve } from "../chart/curve-chart.js";
import type { Drawing } from "../chart/option.js";
import type { DataTable } from "../data-table.js";
import type { ForgetFitFigure, RecallFitFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

const CURVE_POINTS = 97;

export const forgetFit: FigureKind<ForgetFitFigure> = {
  drawing: (figure) => {
    const { fit } = figure;
    const law = fit && { text: lineText(fit), value: (x: number) => fit.slope * x + fit.intercept };
    return capacityChart(figure, "T_forget (tokens)", law);
  },
  table: (figure) => capacityTable(figure, figure.fit && ((x) => figure.fit!.slope * x + figure.fit!.intercept)),
};

export const recallFit: FigureKind<RecallFitFigure> = {
  drawing: (figure) => {
    const { fit } = figure;
    const law = fit && { text: exponentialText(fit), value: (x: number) => exponential(fit, x) };
    return capacityChart(figure, "T_recall (tokens)", law);
  },
  table: (figure) => capacityTable(figure, figure.fit && ((x) => exponential(figure.fit!, x))),
};

interface CapacityData {
  readonly title: string;
  readonly points: readonly Point[];
  readonly published?: readonly Point[];
}

function capacityChart(
  { title, points, published = [] }: CapacityData,
  yTitle: string,
  law: { text: string; value: (x: number) => number } | null,
): Drawing {
  const inUnits = ({ x, y }: Point): Point => ({ x: x * CAPACITY_UNITS.stateFloats, y: y * CAPACITY_UNITS.tokens });
  const largest = Math.max(...points.map(({ x }) => x), ...published.map(({ x }) => x), 0);
  const fitted = Array.from({ length: CURVE_POINTS }, (_, index) => (index * largest) / (CURVE_POINTS - 1));
  const curves: Curve[] = [
    { name: "measured", style: "points", points: points.map(inUnits) },
    ...(law ? [{ name: "fit", style: "line" as const, points: fitted.map((x) => inUnits({ x, y: law.value(x) })) }] : []),
    ...(published.length > 0 ? [{ name: "the paper's", style: "points" as const, points: published.map(inUnits) }] : []),
  ];
  return curveChart(
    title,
    [
      {
        x: { title: "state size (floats)", scale: "linear", format: "short", min: 0 },
        y: { title: yTitle, scale: "linear", format: "tokens", min: 0 },
        curves,
      },
    ],
    law?.text,
  );
}

function capacityTable({ points, published = [] }: CapacityData, law: ((x: number) => number) | null): DataTable {
  const row = (source: string, { x, y }: Point): [string, number, number, number | null] => [
    source,
    x * CAPACITY_UNITS.stateFloats,
    y * CAPACITY_UNITS.tokens,
    law === null ? null : law(x) * CAPACITY_UNITS.tokens,
  ];
  return {
    columns: ["source", "stateFloats", "tokens", "fittedTokens"],
    rows: [...points.map((point) => row("measured", point)), ...published.map((point) => row("paper", point))],
  };
}

function exponential(
  { base, scale, offset }: Pick<NonNullable<RecallFitFigure["fit"]>, "base" | "scale" | "offset">,
  x: number,
): number {
  return scale * (base ** x - 1) + offset;
}

function lineText({ slope, intercept, rSquared }: NonNullable<ForgetFitFigure["fit"]>): string {
  return `fit: y = ${digits(slope)} x ${signed(intercept)}; R^2 = ${digits(rSquared)}; x in millions of floats, y in Ki tokens`;
}

function exponentialText({ base, scale, offset, rSquared }: NonNullable<RecallFitFigure["fit"]>): string {
  return `fit: y = ${digits(scale)} (${digits(base)}^x - 1) ${signed(offset)}; R^2 = ${digits(rSquared)}; x in millions of floats, y in Ki tokens`;
}

function signed(value: number): string {
  return `${value < 0 ? "-" : "+"} ${digits(Math.abs(value))}`;
}

function digits(value: number): string {
  return String(Number(value.toPrecision(4)));
}
