import { formatStepMs } from "./format.js";
import type { StepTimesView } from "./job-view.js";
import type { Column } from "./table.js";

/** Where the time of a step goes on one worker, in milliseconds. */
export const stepTimeColumns: readonly Column<{ readonly stepTimes?: StepTimesView | undefined }>[] = [
  { title: "COMPUTE", value: ({ stepTimes }) => formatStepMs(stepTimes?.computeMs), right: true },
  { title: "EXCHANGE", value: ({ stepTimes }) => formatStepMs(stepTimes?.exchangeMs), right: true },
  { title: "REST", value: ({ stepTimes }) => formatStepMs(stepTimes?.restMs), right: true },
];
