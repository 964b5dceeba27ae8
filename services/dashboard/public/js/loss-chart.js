import uPlot from "/vendor/uPlot.js";
import { h, patchChildren } from "./dom.js";
import { contextLength, digits, whole } from "./format.js";
import { chip, panel, resolveColour } from "./parts.js";

const COLOURS = ["--curve-loss", "--curve-norm", "--curve-speed", "--curve-rate", "--muted", "--bad"];
const HEIGHT = 280;
const STATUS_TONES = { done: "done", running: "good", queued: "wait", failed: "bad" };

/** Loss over position on a logarithmic axis: one line for each cure of an evaluation, the training length and the collapse limits marked. */
export class LossChart {
  constructor() {
    /** What the person chose; undefined follows the first and the newest. */
    this.name = undefined;
    this.step = undefined;
    this.lines = [];
    this.controls = h("div.controls", {});
    this.holder = h("div.plot", { role: "img" });
    this.legend = h("div.legend", {});
    this.element = panel("Loss by position", {}, this.controls, this.holder, this.legend);
    this.onTheme = () => this.#draw();
    document.addEventListener("segue:theme", this.onTheme);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.onTheme);
    this.resizes = new ResizeObserver(() => {
      const width = this.holder.clientWidth;
      if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
    });
    this.resizes.observe(this.holder);
    this.element.addEventListener("change", ({ target }) => {
      if (target.name === "loss-evaluation") [this.name, this.step] = [target.value, undefined];
      else if (target.name === "loss-checkpoint") this.step = Number(target.value);
      this.render(this.evaluations);
    });
  }

  close() {
    document.removeEventListener("segue:theme", this.onTheme);
    this.scheme.removeEventListener("change", this.onTheme);
    this.resizes.disconnect();
    this.plot?.destroy();
  }

  render(evaluations) {
    this.evaluations = evaluations;
    this.element.hidden = evaluations.length === 0;
    if (evaluations.length === 0) return;
    const names = [...new Set(evaluations.map(({ name }) => name))];
    const name = names.includes(this.name) ? this.name : names[0];
    const series = evaluations.filter((evaluation) => evaluation.name === name);
    const steps = [...new Set(series.map(({ step }) => step))];
    const step = steps.includes(this.step) ? this.step : steps[0];
    const lines = series.filter((evaluation) => evaluation.step === step).sort(byCure);
    patchChildren(this.controls, controls({ names, name, steps, step, first: lines[0] }));
    const isNew = JSON.stringify(lines) !== JSON.stringify(this.lines);
    this.lines = lines;
    if (isNew) this.#draw();
    this.#showLegend(this.plot?.cursor.idx ?? undefined);
  }

  #draw() {
    this.plot?.destroy();
    this.plot = undefined;
    const drawn = this.lines.filter(({ losses }) => losses.length > 0);
    this.holder.hidden = drawn.length === 0;
    if (drawn.length === 0) return;
    this.positions = [...new Set(drawn.flatMap(({ positions }) => positions))].sort((a, b) => a - b);
    this.columns = new Map(
      drawn.map((line) => {
        const known = new Map(line.positions.map((position, index) => [position, line.losses[index]]));
        return [line.id, this.positions.map((position) => known.get(position) ?? null)];
      }),
    );
    const words = drawn.map((line) => `${line.cure}: ${verdict(line)}`);
    this.holder.setAttribute("aria-label", `Loss up to ${whole(this.positions.at(-1))} tokens; ${words.join("; ")}`);
    this.plot = new uPlot(this.#options(drawn), [this.positions, ...this.columns.values()], this.holder);
  }

  #options(drawn) {
    const [ink, line] = ["--muted", "--line"].map(resolveColour);
    const axis = { stroke: ink, font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: line, width: 1 } };
    const limits = drawn.flatMap((own) => (own.collapse ? [[colourOf(own, this.lines), limitOf(own)]] : []));
    return {
      width: this.holder.clientWidth || 300,
      height: HEIGHT,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 7 }, y: false },
      scales: {
        x: { time: false, distr: 3, log: 2, range: (_plot, low, high) => (low === high ? [low / 2, high * 2] : [low, high]) },
        y: { range: (_plot, low, high) => yRange(low, high, limits) },
      },
      axes: [
        {
          ...axis,
          size: 30,
          space: 50,
          grid: { show: false },
          values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : contextLength(tick))),
        },
        { ...axis, size: 50, space: 36, values: (_plot, ticks) => ticks.map((tick) => digits(tick, 3)) },
      ],
      series: [
        {},
        ...drawn.map((own) => ({
          stroke: resolveColour(colourOf(own, this.lines)),
          width: 1.8,
          points: { show: own.positions.length < 2 },
          spanGaps: false,
        })),
      ],
      hooks: {
        draw: [
          (plot) => {
            for (const [colour, limit] of limits) mark(plot, { y: limit, colour: resolveColour(colour) });
            mark(plot, { x: drawn[0].trainTokens, colour: ink, text: "training length" });
          },
        ],
        setCursor: [(plot) => this.#showLegend(plot.cursor.idx ?? undefined)],
      },
    };
  }

  #showLegend(index) {
    const at = index === undefined ? "" : ` at ${whole(this.positions[index])}`;
    patchChildren(
      this.legend,
      this.lines.map((line) => {
        const value = index === undefined ? undefined : this.columns.get(line.id)?.[index];
        return h(
          "p.legend-line",
          { "data-key": line.id },
          h("span.swatch", { "aria-hidden": "true", vars: { "--swatch": `var(${colourOf(line, this.lines)})` } }),
          h("b", {}, line.cure),
          line.status === "done" ? [] : chip(line.status || "queued", STATUS_TONES[line.status] ?? "wait"),
          h("span.sub", {}, line.reason || verdict(line)),
          h("span.legend-value", {}, value === undefined || value === null ? "" : `${digits(value, 4)}${at}`),
        );
      }),
      h("p.hint", {}, "Dashed: beyond it the state counts as collapsed."),
    );
  }
}

function controls({ names, name, steps, step, first }) {
  const choice = (value, text, selected) => h("option", { value, selected }, text);
  const { prompt, prompts } = first;
  return [
    names.length > 1
      ? h(
          "label",
          {},
          "Evaluation ",
          h(
            "select",
            { name: "loss-evaluation", "data-value": name },
            names.map((option) => choice(option, option, option === name)),
          ),
        )
      : h("span", {}, name),
    h(
      "label",
      {},
      "Checkpoint ",
      h(
        "select",
        { name: "loss-checkpoint", "data-value": step },
        steps.map((option) => choice(option, `step ${whole(option)}`, option === step)),
      ),
    ),
    h("span.sub", {}, prompts === 1 ? `on ${prompt}` : `mean of ${whole(prompts)} prompts of kind ${prompt}`),
  ];
}

/** The model as it is first, then in order of their names. */
function byCure(a, b) {
  return Number(b.cure === "none") - Number(a.cure === "none") || a.cure.localeCompare(b.cure);
}

function colourOf(line, lines) {
  return COLOURS[lines.indexOf(line) % COLOURS.length];
}

function limitOf({ collapse, collapseFactor }) {
  return collapseFactor * collapse.trainLoss;
}

function verdict(line) {
  const { collapse, collapseFactor } = line;
  if (!collapse) return "";
  const limit = `${collapseFactor} times the largest loss within the training length`;
  if (collapse.firstPosition !== null) return `collapses from ${whole(collapse.firstPosition)} on, above ${limit}`;
  if (collapse.worstRatio === null) return "nothing lies beyond the training length";
  return `no collapse: at most ${digits(collapse.worstRatio, 3)} times the largest loss within the training length`;
}

/** The limits are in sight as far as they do not squeeze the curves. */
function yRange(low, high, limits) {
  if (low === null || high === null) return [0, 1];
  const reach = 2 * high;
  const top = Math.max(high, ...limits.map(([, limit]) => limit).filter((limit) => limit <= reach));
  const margin = (top - low) * 0.08 || Math.abs(top) * 0.1 || 1;
  return [Math.max(0, low - margin), top + margin];
}

/** A dashed line across the plot. */
function mark(plot, { x, y, colour, text }) {
  const { ctx, bbox } = plot;
  const at = x === undefined ? plot.valToPos(y, "y", true) : plot.valToPos(x, "x", true);
  const [left, top, right, bottom] = [bbox.left, bbox.top, bbox.left + bbox.width, bbox.top + bbox.height];
  if (x === undefined ? at < top || at > bottom : at < left || at > right) return;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(x === undefined ? left : at, x === undefined ? at : top);
  ctx.lineTo(x === undefined ? right : at, x === undefined ? at : bottom);
  ctx.stroke();
  if (text) {
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = at > (left + right) / 2 ? "right" : "left";
    ctx.fillText(text, at + (at > (left + right) / 2 ? -6 : 6) * devicePixelRatio, top + 12 * devicePixelRatio);
  }
  ctx.restore();
}
