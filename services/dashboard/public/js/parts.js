import { h } from "./dom.js";
import { bytes, digits, percent, whole } from "./format.js";

/** A command to type, with a button that copies it. */
export function command(text) {
  return h(
    "span.command",
    {},
    h("code", {}, text),
    h("button.copy", { type: "button", "data-copy": text, "aria-label": `Copy: ${text}` }, "Copy"),
  );
}

/** What a section shows when it has nothing to show: why, and what to do. */
export function empty(title, ...advice) {
  return h("div.empty", {}, h("p.empty-title", {}, title), h("div", {}, advice));
}

export function panel(title, { extra = [], id, label = title } = {}, ...children) {
  return h(
    "section.panel",
    { id, "aria-label": label },
    h("header.panel-head", {}, h("h2", {}, title), h("div.panel-extra", {}, extra)),
    children,
  );
}

const TONES = {
  RUNNING: "good",
  SUCCEEDED: "done",
  WAITING: "wait",
  PAUSING: "wait",
  PAUSED: "wait",
  CANCELLED: "off",
  FAILED: "bad",
};

export function phaseChip(phase) {
  return chip(phase ? phase.toLowerCase() : "unknown", TONES[phase] ?? "off");
}

/** @param tone good, done, wait, off or bad; the word says the same as the colour */
export function chip(text, tone) {
  return h("span.chip", { "data-tone": tone }, text);
}

/** What a worker's GPU is doing: how busy and how warm it is, and how full, in two pieces of text. */
export function gpuTexts(gpu) {
  const { utilisationPercent: use, temperatureCelsius: warmth, memoryUsedBytes: used } = gpu;
  const doing = [use === null ? [] : `${whole(use)} %`, warmth === null ? [] : `${whole(warmth)} \u00b0C`].flat().join(" \u00b7 ");
  const memory = used === null ? bytes(gpu.memoryBytes) : `${bytes(used)} of ${bytes(gpu.memoryBytes)}`;
  return { doing: doing || gpu.name, memory, title: `GPU ${gpu.ordinal}: ${gpu.name}, ${gpu.uuid}` };
}

/** Beside a worker that is much slower than the others. */
export function slowChip({ straggler }) {
  return straggler ? [" ", chip("slow", "bad")] : [];
}

export function progress(job) {
  const share = job.totalSteps > 0 ? Math.min(1, job.step / job.totalSteps) : 0;
  return h(
    "div.progress",
    {
      role: "progressbar",
      "aria-label": "Steps done",
      "aria-valuemin": 0,
      "aria-valuemax": job.totalSteps,
      "aria-valuenow": job.step,
      "aria-valuetext": `${job.step} of ${job.totalSteps} steps, ${percent(share)}`,
      "data-phase": job.phase,
      vars: { "--share": String(share) },
    },
    h("span", {}),
  );
}

export function etaSeconds(job) {
  return job.phase === "RUNNING" && job.etaSeconds ? job.etaSeconds : NaN;
}

export function lossText(job) {
  return job.step > 0 || job.loss ? digits(job.loss, 4) : digits(NaN);
}

/** The start of a digest, with the whole of it to copy. */
export function digest(hex) {
  if (!hex) return "";
  return h("button.digest", { type: "button", "data-copy": hex, title: `Copy ${hex}` }, hex.slice(0, 12));
}

/** The colour behind a CSS variable in the present theme; a canvas does not know variables. */
export function resolveColour(name) {
  const probe = h("span", { hidden: true, vars: { color: `var(${name})` } });
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
