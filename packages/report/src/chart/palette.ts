/** Colours that are told apart with every common colour blindness (Okabe and Ito), as they are on white and on near-black. */
export const SERIES_COLOURS = [
  { light: "#0072b2", dark: "#4ea8de" },
  { light: "#d55e00", dark: "#f08a3c" },
  { light: "#009e73", dark: "#2fc79a" },
  { light: "#b8558f", dark: "#e08fbf" },
  { light: "#c98a00", dark: "#e8b83a" },
  { light: "#4aa3d8", dark: "#8fd0f5" },
  { light: "#6b5b95", dark: "#a99bd6" },
  { light: "#4d4d4e", dark: "#bdbdbe" },
] as const;

/** Inks of a chart. Each is a colour of its own, so that a page can put its own in its place. */
export const INK = {
  text: { light: "#1c2128", dark: "#e6e9ee" },
  muted: { light: "#57606b", dark: "#a3acb8" },
  axis: { light: "#8a929c", dark: "#78818c" },
  grid: { light: "#e4e7eb", dark: "#2e343c" },
  paper: { light: "#fffffe", dark: "#15181d" },
} as const;

const DASHES = ["solid", "dashed", "dotted"] as const;

/** Of the n-th series: colours first, then dashes, so that 24 are told apart. */
export function seriesStyle(index: number): { colour: string; dash: (typeof DASHES)[number] } {
  const colour = SERIES_COLOURS[index % SERIES_COLOURS.length]!.light;
  return { colour, dash: DASHES[Math.floor(index / SERIES_COLOURS.length) % DASHES.length]! };
}

/** Every colour that a dark page replaces, with its name as a variable of the page's style. */
export const THEMED_COLOURS: readonly { readonly variable: string; readonly light: string; readonly dark: string }[] = [
  ...Object.entries(INK).map(([name, colours]) => ({ variable: `--chart-${name}`, ...colours })),
  ...SERIES_COLOURS.map((colours, index) => ({ variable: `--chart-series-${index}`, ...colours })),
];

/** Cividis at even steps: from dark blue, for 0, to yellow, for 1; as good without colour. */
export const SHARE_COLOURS = ["#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838"] as const;
