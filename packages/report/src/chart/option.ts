import type { ComposeOption } from "echarts/core";
import type { HeatmapSeriesOption, LineSeriesOption } from "echarts/charts";
import type {
  GridComponentOption,
  LegendComponentOption,
  TitleComponentOption,
  VisualMapComponentOption,
} from "echarts/components";
import { INK } from "./palette.js";

/** What a kind of figure asks of ECharts, and on how large a sheet. */
export interface Drawing {
  readonly widthPx: number;
  readonly heightPx: number;
  readonly option: ChartOption;
}

export type ChartOption = ComposeOption<
  | GridComponentOption
  | HeatmapSeriesOption
  | LegendComponentOption
  | LineSeriesOption
  | TitleComponentOption
  | VisualMapComponentOption
>;

export const FONT_PX = 13;
/** Verdana has the widths of DejaVu Sans, which PNGs are drawn with. */
export const FONT_FAMILY = "DejaVu Sans, Verdana, sans-serif";
export const SHEET_WIDTH_PX = 880;

/** Of DejaVu Sans, generously: legends and margins must not depend on a font that may not be there. */
export function textWidthPx(text: string, fontPx = FONT_PX): number {
  return Math.ceil(text.length * fontPx * 0.62);
}

/** What every drawing has: a title, one font, nothing that moves. */
export function baseOption(title: string, subtitle = ""): ChartOption {
  return {
    animation: false,
    backgroundColor: INK.paper.light,
    textStyle: { fontFamily: FONT_FAMILY, fontSize: FONT_PX, color: INK.text.light },
    title: {
      text: title,
      subtext: subtitle,
      subtextStyle: { fontFamily: FONT_FAMILY, fontSize: FONT_PX, color: INK.muted.light },
      itemGap: 4,
      left: 16,
      top: 12,
      textStyle: {
        fontFamily: FONT_FAMILY,
        fontSize: 16,
        fontWeight: "bold",
        color: INK.text.light,
        width: SHEET_WIDTH_PX - 32,
        overflow: "truncate",
      },
    },
  };
}

export const AXIS_STYLE = {
  nameLocation: "middle",
  nameTextStyle: { color: INK.text.light, fontSize: FONT_PX },
  axisLine: { show: true, lineStyle: { color: INK.axis.light } },
  axisTick: { show: true, lineStyle: { color: INK.axis.light } },
  axisLabel: { color: INK.muted.light, fontSize: FONT_PX - 1 },
  splitLine: { show: true, lineStyle: { color: INK.grid.light } },
} as const;
