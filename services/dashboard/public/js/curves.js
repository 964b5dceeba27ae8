import uPlot from "/vendor/uPlot.js";
import { h } from "./dom.js";
import { digits, short, whole } from "./format.js";
import { resolveColour } from "./parts.js";

const CURVES = [
  { column: "loss", title: "Loss", colour: "--curve-loss", format: (value) => digits(value, 4), height: 250, wide: true },
  { column: "learningRate", title: "Learning rate", colour: "--curve-rate", format: (value) => digits(value, 3), height: 150 },
  { column: "gradientNorm", title: "Gradient norm", colour: "--curve-norm", format: (value) => digits(value, 3), height: 150 },
  { column: "tokensPerSecond", title: "Tokens/s", colour: "--curve-speed", format: short, height: 150, fromZero: true },
];
const POINTS = 600;
/** Live points added to the loaded ones before the series is loaded anew, thinned by the server. */
const MAX_POINTS = 3 * POINTS;

/** The training curves of one job: loaded once, then continued by the points that arrive live. */
export class Curves {
  constructor(jobId) {
    this.jobId = jobId;
    this.series = undefined;
    this.arrived = [];
    this.logScale = false;
    this.plots = [];
    this.element = h(
      "div.curves",
      {},
      CURVES.map((curve) => this.#figure(curve)),
    );
    this.message = h("p.curves-message", { role: "status" }, "Loading curves\u2026");
    this.element.prepend(this.message);
    this.onTheme = () => this.#rebuild();
    document.addEventListener("segue:theme", this.onTheme);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.onTheme);
    this.resizes = new ResizeObserver(() => this.#resize());
    this.resizes.observe(this.element);
    this.element.addEventListener("change", (event) => {
      if (event.target.name !== "log") return;
      this.logScale = event.target.checked;
      this.#rebuild();
    });
  }

  /** Loads what is recorded. Points that arrive meanwhile are kept and added. */
  async load() {
    if (this.loading) return;
    this.loading = true;
    this.arrived = [];
    try {
      const response = await fetch(`/api/jobs/${encodeURIComponent(this.jobId)}/series?points=${POINTS}`);
      if (!response.ok) return;
      this.series = await response.json();
      for (const columns of this.arrived.splice(0)) extend(this.series, columns);
      this.#draw();
    } catch {
      // The stream reconnects and asks again.
    } finally {
      this.loading = false;
    }
  }

  add(columns) {
    if (this.loading || this.series === undefined) {
      this.arrived.push(columns);
      return;
    }
    extend(this.series, columns);
    if (this.series.step.length > MAX_POINTS) void this.load();
    else this.#draw();
  }

  close() {
    document.removeEventListener("segue:theme", this.onTheme);
    this.scheme.removeEventListener("change", this.onTheme);
    this.resizes.disconnect();
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
  }

  #figure({ column, title, wide }) {
    return h(
      wide ? "figure.curve.wide" : "figure.curve",
      { "data-column": column },
      h(
        "figcaption",
        {},
        h("span.curve-title", {}, title),
        h("span.curve-value", {}, ""),
        wide ? h("label.toggle", {}, h("input", { type: "checkbox", name: "log" }), " log scale") : [],
      ),
      h("div.plot", { role: "img", "aria-label": title }),
    );
  }

  #draw() {
    const { series } = this;
    const isEmpty = series.step.length === 0;
    this.message.hidden = !isEmpty;
    this.message.textContent = isEmpty ? "No step has been recorded yet. The curves start with the first one." : "";
    this.element.toggleAttribute("data-empty", isEmpty);
    if (isEmpty) return;
    if (this.plots.length === 0) this.#rebuild();
    CURVES.forEach(({ column, title, format }, index) => {
      this.plots[index].setData([series.step, series[column]]);
      const plot = this.plots[index].root.parentElement;
      const [first, last] = [series[column].find((value) => value !== null), series[column].findLast((value) => value !== null)];
      plot.setAttribute(
        "aria-label",
        `${title} from ${format(first ?? NaN)} at step ${whole(series.step[0])} to ${format(last ?? NaN)} at step ${whole(series.step.at(-1))}`,
      );
    });
    this.#showValues();
  }

  #showValues(index) {
    const { series } = this;
    if (series === undefined || series.step.length === 0) return;
    for (const { column, format } of CURVES) {
      const at = index ?? series.step.length - 1;
      const words = `${format(series[column][at] ?? NaN)}${index === undefined ? "" : ` at step ${whole(series.step[at])}`}`;
      this.element.querySelector(`[data-column=${column}] .curve-value`).textContent = words;
    }
  }

  #rebuild() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    if (this.series === undefined || this.series.step.length === 0) return;
    this.plots = CURVES.map((curve) => {
      const holder = this.element.querySelector(`[data-column=${curve.column}] .plot`);
      return new uPlot(this.#options(curve, holder), [this.series.step, this.series[curve.column]], holder);
    });
    this.#showValues();
  }

  #options(curve, holder) {
    const [ink, line, stroke] = ["--muted", "--line", curve.colour].map(resolveColour);
    const axis = { stroke: ink, font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: line, width: 1 } };
    const log = this.logScale && curve.column === "loss";
    return {
      width: holder.clientWidth || 300,
      height: curve.height,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "segue" }, drag: { x: true, y: false }, points: { size: 7 }, y: false },
      scales: {
        x: { time: false, range: (_plot, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
        y: log ? { distr: 3 } : { range: (_plot, low, high) => yRange(low, high, curve.fromZero) },
      },
      axes: [
        {
          ...axis,
          size: 30,
          space: 70,
          grid: { show: false },
          values: (_plot, ticks) => ticks.map((tick) => (tick % 1 ? "" : short(tick))),
        },
        {
          ...axis,
          size: 58,
          space: curve.wide ? 36 : 28,
          values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : curve.format(tick))),
        },
      ],
      series: [
        {},
        {
          stroke,
          width: 1.8,
          fill: `color-mix(in srgb, ${stroke} 9%, transparent)`,
          fillTo: (plot) => plot.scales.y.min,
          points: { show: this.series.step.length < 2 },
          spanGaps: false,
        },
      ],
      hooks: { setCursor: [(plot) => this.#showValues(plot.cursor.idx ?? undefined)] },
    };
  }

  #resize() {
    this.plots.forEach((plot, index) => {
      const width = plot.root.parentElement.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: CURVES[index].height });
    });
  }
}

/** Adds newer columns. A run that went back to a checkpoint repeats steps: the older values of those are dropped. */
export function extend(series, columns) {
  if (columns.step.length === 0) return;
  let keep = series.step.length;
  while (keep > 0 && series.step[keep - 1] >= columns.step[0]) keep--;
  for (const name of Object.keys(columns)) {
    series[name].length = keep;
    series[name].push(...columns[name]);
  }
}

function yRange(low, high, fromZero) {
  if (low === null || high === null) return [0, 1];
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  return [fromZero ? 0 : Math.max(low - margin, low >= 0 ? 0 : -Infinity), high + margin];
}
