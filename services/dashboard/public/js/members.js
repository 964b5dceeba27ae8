import { h } from "./dom.js";
import { digits, whole } from "./format.js";
import { gpuTexts, panel, slowChip } from "./parts.js";

/** Parts of a step in the order in which they are drawn. */
const PARTS = [
  ["compute", "computing"],
  ["exchange", "waiting for gradients"],
  ["rest", "rest"],
];

/** Who works on a job: where the time of each member's steps goes, on one scale, and who is slow. Nothing without members. */
export function membersPanel(members) {
  if (members.length === 0) return [];
  const longestMs = Math.max(...members.map(({ stepTimes }) => totalMs(stepTimes)));
  const hasGpus = members.some(({ gpu }) => gpu);
  const slow = members.filter(({ straggler }) => straggler).length;
  return panel(
    "Members",
    { extra: [slow > 0 ? `${slow} slow, ` : "", `${whole(members.length)} in all`] },
    h(
      "ul.part-legend",
      { "aria-label": "Parts of a step" },
      PARTS.map(([part, words]) => h("li", { "data-part": part }, words)),
    ),
    h(
      "table.rows.members",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Worker"),
          h("th.number", { scope: "col" }, "Shards"),
          h("th.number", { scope: "col" }, "ms a shard"),
          hasGpus ? h("th", { scope: "col" }, "GPU") : [],
          h("th", { scope: "col" }, "A step"),
        ),
      ),
      h(
        "tbody",
        {},
        members.map((member) => memberRow(member, longestMs, hasGpus)),
      ),
    ),
  );
}

function memberRow(member, longestMs, hasGpus) {
  return h(
    "tr",
    { "data-key": member.workerId },
    h("th", { scope: "row" }, member.workerId, slowChip(member)),
    h("td.number", { "data-label": "Shards" }, whole(member.shards)),
    h("td.number", { "data-label": "ms a shard" }, digits(member.shardMs || NaN, 3)),
    hasGpus ? gpuCell(member.gpu) : [],
    h("td.step-times", { "data-label": "A step" }, stepBar(member.stepTimes, longestMs)),
  );
}

function gpuCell(gpu) {
  if (!gpu) return h("td", { "data-label": "GPU" }, h("span.muted", {}, "none"));
  const { doing, memory, title } = gpuTexts(gpu);
  return h("td", { "data-label": "GPU", title }, doing, h("span.sub", {}, memory));
}

/** One bar of three parts, as long as the step beside the longest one, and the same in words. */
function stepBar(stepTimes, longestMs) {
  const ofAll = totalMs(stepTimes);
  if (ofAll === 0) return h("span.muted", {}, "no round yet");
  const words = PARTS.map(([part, name]) => `${digits(stepTimes[`${part}Ms`], 3)} ms ${name}`).join(", ");
  return [
    h(
      "div.step-bar",
      { role: "img", "aria-label": words, title: words },
      PARTS.map(([part]) => h("span", { "data-part": part, vars: { "--share": String(stepTimes[`${part}Ms`] / longestMs) } })),
    ),
    h("span.sub", {}, `${digits(ofAll, 3)} ms = ${PARTS.map(([part]) => digits(stepTimes[`${part}Ms`], 3)).join(" + ")}`),
  ];
}

function totalMs(stepTimes) {
  return stepTimes ? stepTimes.computeMs + stepTimes.exchangeMs + stepTimes.restMs : 0;
}
