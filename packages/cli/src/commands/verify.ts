import { Option, type Command } from "commander";
import {
  createEngine,
  readCarriedCases,
  readScanCases,
  readVerifyCase,
  verifyCarried,
  verifyEngine,
  verifyScan,
  type CarriedMeasurement,
  type EngineName,
  type Measurement,
  type ScanCase,
  type ScanMeasurement,
  type ScanReport,
  type VerifyCase,
  type VerifyReport,
} from "@segue/engine";
import { addJsonOption } from "../connection.js";
import { EXIT, ReportedFailure } from "../failure.js";
import { wholeNumber } from "../numbers.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";
import { renderTable, type Column } from "../show/table.js";

/** The cut run has this many segments unless --segment says otherwise; an uneven number, so that lengths come out odd. */
const SEGMENTS = 3;

interface VerifyOptions {
  readonly engine: EngineName | "auto";
  readonly threads: number;
  readonly lanes: number;
  readonly tokens?: number;
  readonly segment?: number;
  readonly seed: number;
  readonly json?: boolean;
}

export function addVerifyCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("verify <dir>"))
    .description("prove an engine right on this machine: outputs, states and every gradient of a model folder")
    .addOption(new Option("--engine <name>", "engine to prove").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "CPU threads; 0: as many as there are cores", wholeNumber(0, 1024), 0)
    .option("--segment <tokens>", "tokens of the segments of the cut run (default: a third)", wholeNumber(1, 2 ** 31 - 1))
    .option("--lanes <lanes>", "without golden values: lanes of random tokens", wholeNumber(1, 4096), 2)
    .option("--tokens <tokens>", "without golden values: tokens a lane (default: by the model's size)", wholeNumber(1, 2 ** 24))
    .option("--seed <seed>", "without golden values: seed of the random tokens", wholeNumber(0, 2 ** 32 - 1), 0)
    .addHelpText(
      "after",
      "\nThe folder has config.json and model.safetensors, as Hugging Face or state-spaces name them, and golden.safetensors if\n" +
        "there are results to compare with: input_ids, targets, logits, loss, grad.<parameter>. What it lacks is compared with a\n" +
        "float64 reference that computes one token after the other: expect minutes and 32 bytes of memory a parameter.\n" +
        "carried.safetensors, if it is there, holds cases of carried states: cuts at odd places, resets, initial states.\n" +
        "A folder with the scan alone has one safetensors file with 0.x, 0.dt, 0.A, 0.B, 0.C, 0.D, 0.dt_bias, 0.initial_state, the\n" +
        "weights 0.weight_y and 0.weight_final_state of its loss, results 0.y, 0.final_state, 0.grad.<input>, then the same for 1, ...\n" +
        "Everything runs twice, in one segment and cut into several with the states carried. Exits with 1 if anything is off by\n" +
        "more than its limit, with 2 if the folder cannot be used.\n\n" +
        "Examples:\n  segue verify ./text-model\n  segue verify ./text-model --engine cuda --tokens 384 --json\n",
    )
    .action((dir: string, options: VerifyOptions) => verify(dir, options, runtime));
}

async function verify(dir: string, options: VerifyOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const scans = await readScanCases(dir);
  if (scans) return verifyScans(dir, scans, options, output, runtime.signal);
  const verifyCase = await readVerifyCase(dir, options);
  const { model, batch } = verifyCase;
  const carriedCases = await readCarriedCases(dir, model);
  const engine = await createEngine(options.engine, { model, precision: "f32", threads: options.threads });
  let report: VerifyReport;
  let carried: CarriedMeasurement[];
  try {
    output.note(`engine ${engine.description.detail}, against the float64 reference; a large model takes minutes`);
    const segmentTokens = Math.min(batch.tokens, options.segment ?? Math.ceil(batch.tokens / SEGMENTS));
    report = await verifyEngine(engine, verifyCase, segmentTokens, runtime.signal);
    // With the parameters that the run before has left there.
    carried = await verifyCarried(engine, carriedCases, runtime.signal);
  } finally {
    engine.close();
  }
  const passed = report.passed && carried.every(({ pass }) => pass);
  const result = { folder: dir, golden: verifyCase.golden !== undefined, ...report, passed, carried };
  output.result(result, () => [render(dir, verifyCase, report), ...renderCarried(carried)].join("\n"));
  if (!passed) throw new ReportedFailure(EXIT.failed);
}

async function verifyScans(
  dir: string,
  cases: readonly ScanCase[],
  { engine, threads }: VerifyOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const report = await verifyScan(engine, threads, cases, signal);
  output.result({ folder: dir, golden: true, ...report }, () => renderScans(dir, report));
  if (!report.passed) throw new ReportedFailure(EXIT.failed);
}

/** Nothing where the folder has no such cases. */
function renderCarried(measurements: readonly CarriedMeasurement[]): string[] {
  if (measurements.length === 0) return [];
  const failed = measurements.filter(({ pass }) => !pass).length;
  return [
    "",
    "Carried states: cuts, resets and initial states of carried.safetensors",
    renderTable(carriedColumns, measurements),
    "",
    failed === 0
      ? `passed: all ${measurements.length} of carried states within their limits`
      : `FAILED: ${failed} of ${measurements.length} of carried states beyond their limits`,
  ];
}

function renderScans(dir: string, { engine, scans, measurements }: ScanReport): string {
  const failed = measurements.filter(({ pass }) => !pass).length;
  return [
    `engine  ${engine.detail}, beside the float64 reference`,
    `scans   ${dir}: ${scans.length}, golden values`,
    ...scans.flatMap(({ lanes, tokens, heads, headDim, dState, groups }, scan) => [
      "",
      `Scan ${scan}: ${lanes} x ${tokens} tokens, ${heads} heads of ${headDim}, state ${dState}, B/C groups ${groups}`,
      renderTable(
        scanColumns,
        measurements.filter((measurement) => measurement.scan === scan),
      ),
    ]),
    "",
    failed === 0
      ? `passed: all ${measurements.length} within their limits`
      : `FAILED: ${failed} of ${measurements.length} beyond their limits`,
  ].join("\n");
}

function render(dir: string, { golden }: VerifyCase, report: VerifyReport): string {
  const { engine, parameters, lanes, tokens, segmentTokens, measurements } = report;
  const values = golden ? "golden values" : "no golden values, random tokens";
  const failed = measurements.filter(({ pass }) => !pass).length;
  const section = (run: Measurement["run"]): string =>
    renderTable(
      columns,
      measurements.filter((measurement) => measurement.run === run),
    );
  return [
    `engine  ${engine.detail}`,
    `model   ${dir}: ${formatCount(parameters)} parameters, ${values}`,
    "",
    `In one segment of ${lanes} x ${tokens} tokens`,
    section("whole"),
    "",
    `In segments of ${lanes} x ${segmentTokens} tokens, states carried`,
    section("cut"),
    "",
    `Gradients through all segments of ${lanes} x ${segmentTokens} tokens (tbptt.gradient: full)`,
    section("through"),
    "",
    failed === 0
      ? `passed: all ${measurements.length} within their limits, the closest is ${closest(measurements)}`
      : `FAILED: ${failed} of ${measurements.length} beyond their limits`,
  ].join("\n");
}

const columns: Column<Measurement>[] = [
  { title: "QUANTITY", value: ({ quantity }) => quantity },
  { title: "AGAINST", value: ({ against }) => against },
  { title: "RELATIVE L2", value: ({ error }) => error.toExponential(1), right: true },
  { title: "LIMIT", value: ({ limit }) => limit.toExponential(), right: true },
  { title: "RESULT", value: ({ pass }) => (pass ? "pass" : "FAIL") },
];

const carriedColumns: Column<CarriedMeasurement>[] = [
  { title: "CASE", value: (measurement) => String(measurement.case), right: true },
  { title: "QUANTITY", value: ({ quantity }) => quantity },
  { title: "RELATIVE L2", value: ({ error }) => error.toExponential(1), right: true },
  { title: "LIMIT", value: ({ limit }) => limit.toExponential(), right: true },
  { title: "RESULT", value: ({ pass }) => (pass ? "pass" : "FAIL") },
];

const scanColumns: Column<ScanMeasurement>[] = [
  { title: "DEVICE", value: ({ device }) => device },
  { title: "RUN", value: ({ run }) => run },
  { title: "QUANTITY", value: ({ quantity }) => quantity },
  { title: "RELATIVE L2", value: ({ error }) => error.toExponential(1), right: true },
  { title: "LIMIT", value: ({ limit }) => limit.toExponential(), right: true },
  { title: "RESULT", value: ({ pass }) => (pass ? "pass" : "FAIL") },
];

function closest(measurements: readonly Measurement[]): string {
  const share = ({ error, limit }: Measurement): number => error / limit;
  const { quantity, run, error, limit } = measurements.reduce((a, b) => (share(b) > share(a) ? b : a));
  return `${quantity} (${run}) at ${((100 * error) / limit).toPrecision(2)} % of its`;
}
