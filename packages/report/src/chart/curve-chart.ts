import type { LineSeriesOption } from "echarts/charts";
import { axisRange, onAxis, tickLabel, type AxisRange, type AxisSpec } from "./axis.js";
import { AXIS_STYLE, baseOption, FONT_PX, SHEET_WIDTH_PX, textWidthPx, type Drawing } from "./option.js";
import { INK, seriesStyle } from "./palette.js";

export interface Curve {
  readonly name: string;
  readonly points: readonly CurvePoint[];
  /** Default: a line, with its points where they are few. Steps keep the value of a point from the point before on. */
  readonly style?: "line" | "points" | "steps";
}

export interface CurvePoint {
  readonly x: number;
  /** Null: a gap. */
  readonly y: number | null;
  /** Drawn as a whisker. */
  readonly interval?: { readonly low: number; readonly high: number };
  /** Written beside the point. */
  readonly label?: string;
}

/** A straight line across a panel. */
export interface Mark {
  readonly axis: "x" | "y";
  readonly at: number;
  readonly label: string;
}

export interface Panel {
  readonly x: AxisSpec;
  readonly y: AxisSpec;
  readonly curves: readonly Curve[];
  readonly marks?: readonly Mark[];
}

const MANY_POINTS = 48;
const LEGEND_ROW_PX = 24;
const TOP_PX = 62;
const GAP_PX = 26;
const BOTTOM_PX = 58;
const PLOT_PX = { alone: 340, stacked: 210 } as const;

/** Panels above one another over the same x, with one legend for all: a curve of the same name has the same colour in each. */
export function curveChart(title: string, panels: readonly Panel[], subtitle?: string): Drawing {
  const names = [...new Set(panels.flatMap(({ curves }) => curves.map(({ name }) => name)))];
  const hasLegend = names.length > 1;
  const legendPx = hasLegend ? Math.min(300, Math.max(...names.map((name) => textWidthPx(name))) + 44) : 0;
  const plotPx = panels.length > 1 ? PLOT_PX.stacked : Math.max(PLOT_PX.alone, hasLegend ? names.length * LEGEND_ROW_PX : 0);
  const heightPx = TOP_PX + panels.length * (plotPx + GAP_PX) - GAP_PX + BOTTOM_PX;
  const xValues = panels.flatMap(({ curves, marks = [] }) => [
    ...curves.flatMap(({ points }) => points.map(({ x }) => x)),
    ...marks.filter(({ axis }) => axis === "x").map(({ at }) => at),
  ]);
  const option = {
    ...baseOption(title, subtitle),
    grid: panels.map((_, index) => ({
      left: 84,
      right: 30 + legendPx,
      top: TOP_PX + index * (plotPx + GAP_PX),
      height: plotPx,
      outerBoundsMode: "none" as const,
    })),
    xAxis: panels.map(({ x }, index) => {
      const isLast = index === panels.length - 1;
      return valueAxis(x, axisRange(x, xValues, 10), { gridIndex: index, nameGap: 30, isNamed: isLast });
    }),
    yAxis: panels.map(({ y, curves, marks = [] }, index) => {
      const range = axisRange(y, [...yValues(curves), ...marks.filter(({ axis }) => axis === "y").map(({ at }) => at)], 5);
      return valueAxis(y, range, { gridIndex: index, nameGap: 58, isNamed: true });
    }),
    series: panels.flatMap((panel, index) => [
      ...panel.curves.map((curve) => curveSeries(panel, curve, index, names.indexOf(curve.name))),
      markSeries(panel, index),
    ]),
    ...(hasLegend && {
      legend: {
        orient: "vertical" as const,
        // ECharts guesses the width of text; from the left it does not matter.
        left: SHEET_WIDTH_PX - legendPx - 8,
        top: TOP_PX,
        itemGap: LEGEND_ROW_PX - 16,
        itemWidth: 22,
        data: names,
        textStyle: { color: INK.text.light, fontSize: FONT_PX, width: legendPx - 40, overflow: "truncate" as const },
      },
    }),
  };
  return { widthPx: SHEET_WIDTH_PX, heightPx, option };
}

function yValues(curves: readonly Curve[]): (number | null)[] {
  return curves.flatMap(({ points }) => points.flatMap(({ y, interval }) => (interval ? [y, interval.low, interval.high] : [y])));
}

function valueAxis(axis: AxisSpec, range: AxisRange, at: { gridIndex: number; nameGap: number; isNamed: boolean }): object {
  const { isNamed, ...placed } = at;
  const { min, max, ticks: customValues } = range;
  return {
    type: "value",
    ...placed,
    min,
    max,
    ...(isNamed && { name: axis.title }),
    ...AXIS_STYLE,
    axisLine: { ...AXIS_STYLE.axisLine, onZero: false },
    axisTick: { ...AXIS_STYLE.axisTick, customValues },
    splitLine: { ...AXIS_STYLE.splitLine, customValues },
    axisLabel: {
      ...AXIS_STYLE.axisLabel,
      customValues,
      formatter: (tick: number) => tickLabel(axis, tick),
      hideOverlap: true,
      show: isNamed,
    },
  };
}

function curveSeries({ x, y }: Panel, { name, points, style = "line" }: Curve, index: number, order: number): LineSeriesOption {
  const { colour, dash } = seriesStyle(order);
  const isLine = style !== "points";
  const place = (point: { x: number; y: number | null }): [number | string, number | string] => [
    onAxis(x, point.x) ?? "-",
    onAxis(y, point.y) ?? "-",
  ];
  const whiskers = points.flatMap(({ x: at, interval }) =>
    interval ? [[{ coord: place({ x: at, y: interval.low }) }, { coord: place({ x: at, y: interval.high }) }]] : [],
  );
  return {
    ...PLAIN_LINE,
    name,
    xAxisIndex: index,
    yAxisIndex: index,
    data: points.map((point) => ({
      value: place(point),
      ...(point.label !== undefined && {
        label: {
          show: true,
          formatter: verbatim(point.label),
          // Below and right: curves with names at their points rise.
          position: "right",
          offset: [0, 9],
          color: INK.muted.light,
          fontSize: FONT_PX - 2,
        },
      }),
    })),
    ...(style === "steps" && { step: "start" as const }),
    symbol: isLine ? "circle" : SYMBOLS[order % SYMBOLS.length]!,
    symbolSize: isLine ? 6 : 9,
    showSymbol: !isLine || (style === "line" && points.length <= MANY_POINTS),
    lineStyle: { color: colour, width: isLine ? 2 : 0, type: dash },
    itemStyle: { color: colour },
    ...(whiskers.length > 0 && {
      markLine: {
        ...PLAIN_MARKS,
        lineStyle: { color: colour, width: 1.5, type: "solid" as const },
        label: { show: false },
        data: whiskers as never,
      },
    }),
  };
}

/** An empty series that carries a panel's marks, so that they are in no legend. */
function markSeries({ x, y, marks = [] }: Panel, index: number): LineSeriesOption {
  return {
    ...PLAIN_LINE,
    xAxisIndex: index,
    yAxisIndex: index,
    data: [],
    markLine: {
      ...PLAIN_MARKS,
      lineStyle: { color: INK.muted.light, width: 1.5, type: "dashed" },
      data: marks.flatMap(({ axis, at, label }): object[] => {
        const place = onAxis(axis === "x" ? x : y, at);
        if (place === null) return [];
        const text = { show: true, formatter: verbatim(label), color: INK.text.light, fontSize: FONT_PX - 1 };
        return axis === "x"
          ? [{ xAxis: place, label: { ...text, position: "end" as const, distance: 4, rotate: 0 } }]
          : [{ yAxis: place, label: { ...text, position: "insideStartTop" as const } }];
      }),
    },
  };
}

/** Points without lines may lie on one another. */
const SYMBOLS = ["circle", "triangle", "diamond"] as const;
const PLAIN_LINE = { type: "line", silent: true, emphasis: { disabled: true }, connectNulls: false } as const;
const PLAIN_MARKS = { silent: true, symbol: "none", animation: false, emphasis: { disabled: true } } as const;

/** A label as it is: in texts ECharts reads {a}, {b} and {c} as its own. */
function verbatim(text: string): () => string {
  return () => text;
}
