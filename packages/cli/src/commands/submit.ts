import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { jobSpecToYaml, SegueError, validateJobSpec } from "@segue/core";
import { jobMemory, shardedMemory } from "@segue/engine";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { readSpec } from "../read-spec.js";
import type { CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";
import { jobView, type JobView } from "../show/job-view.js";
import { planLine, planView, type PlanView } from "../show/data-plan.js";
import { memoryLine, shardedLine } from "../show/memory-report.js";
import { memoryOptions } from "./memory.js";
import { watchJob } from "./watch.js";

interface SubmitOptions extends ConnectionOptions {
  readonly watch?: boolean;
  readonly validate?: boolean;
}

export function addSubmitCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("submit <file>"))
    .description("submit a job spec (YAML; - reads standard input)")
    .option("--watch", "stay and show how the job goes on")
    .option("--validate", "only check the spec and print it with every default filled in")
    .addHelpText(
      "after",
      "\nPaths in the spec are paths on the coordinator's machine.\n\nExamples:\n" +
        "  segue submit recipes/text.yaml --watch\n  segue submit recipes/text.yaml --validate\n",
    )
    .action((file: string, options: SubmitOptions) =>
      withConnection(runtime, options, (connected) => submitFile(connected, file, options)),
    );
}

async function submitFile(connected: Connected, file: string, options: SubmitOptions): Promise<void> {
  const { connection, output } = connected;
  const validateOnly = options.validate === true;
  const { job, warnings, plan } = await connection.jobs.submitJob({
    source: { case: "yaml", value: await readSpec(file) },
    // A retry inside the connection must not submit twice.
    idempotencyKey: randomUUID(),
    validateOnly,
  });
  if (!job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
  for (const warning of warnings) output.note(`warning: ${warning}`);
  const view = jobView(job);
  const planned = plan ? { plan: planView(plan) } : {};
  if (validateOnly) {
    const { spec } = validateJobSpec(view.spec);
    const memory = jobMemory(spec, memoryOptions(spec));
    output.result({ ...view, warnings, memory, ...planned }, () => jobSpecToYaml(spec).trimEnd());
    if (planned.plan) output.note(planLine(planned.plan));
    output.note(memoryLine(memory));
    const sharded = shardedMemory(spec, memoryOptions(spec));
    if (sharded) output.note(shardedLine(sharded));
    return;
  }
  const watching = options.watch === true;
  output.result({ ...view, warnings, ...planned }, () => submittedText(view, watching, planned.plan));
  if (watching) await watchJob(connected, view.jobId);
}

function submittedText(view: JobView, watching: boolean, plan: PlanView | undefined): string {
  const size = `${formatCount(view.parameters)} parameters, ${formatCount(view.totalSteps)} steps, ${formatCount(view.totalTokens)} tokens`;
  return [
    `submitted ${view.jobId}: ${size}`,
    ...(plan ? [planLine(plan)] : []),
    ...(watching ? [] : [`watch it with: segue watch ${view.jobId}`]),
  ].join("\n");
}
