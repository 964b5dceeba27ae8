import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, GpuLoadSchema, GpuSchema, JobPhase, WorkerInfoSchema } from "@segue/protocol";
import {
  job,
  MODEL_BYTES,
  segue,
  startScriptedCoordinator,
  worker,
  type ScriptedCoordinator,
} from "./support/scripted-coordinator.js";

const SPEC = "{model: {layers: 1, dModel: 64}, data: {passkey: {}}, train: {steps: 100}}";

describe("segue", () => {
  let coordinator: ScriptedCoordinator;
  let dir: string;

  beforeEach(async () => {
    coordinator = await startScriptedCoordinator();
    dir = await mkdtemp(join(tmpdir(), "segue-cli-"));
  });
  afterEach(async () => {
    await coordinator.close();
    await rm(dir, { recursive: true, force: true });
  });

  const run = (...args: string[]) => segue([...args, "--coordinator", coordinator.address]);
  const json = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { stdout, stderr } = await run(...args, "--json");
    assert.equal(stderr, "");
    return JSON.parse(stdout) as Record<string, unknown>;
  };
  const writeSpec = async (text: string): Promise<string> => {
    const file = join(dir, "spec.yaml");
    await writeFile(file, text);
    return file;
  };

  describe("submit", () => {
    it("says the id and how to watch it", async () => {
      const { exitCode, stdout } = await run("submit", await writeSpec(SPEC));
      assert.equal(exitCode, 0);
      assert.match(stdout, /^submitted job-1: 85,000 parameters, 100 steps, 10,000 tokens\nwatch it with: segue watch job-1\n$/);
    });

    it("only validates and prints the effective spec as YAML that can be submitted", async () => {
      const { exitCode, stdout, stderr } = await run("submit", await writeSpec(SPEC), "--validate");
      assert.match(stderr, /^memory: a worker needs \d+ MiB \(1 worker, engine cpu\), the coordinator \d+ MiB$/m);
      assert.equal(exitCode, 0);
      assert.match(stdout, /segmentTokens: 2048/);
      assert.equal((await run("submit", await writeSpec(stdout), "--validate")).stdout, stdout);
    });

    it("lists every wrong field and exits with 2", async () => {
      const { exitCode, stderr } = await run("submit", await writeSpec("{model: {layers: 0, dModle: 64}, train: {steps: 100}}"));
      assert.equal(exitCode, 2);
      assert.match(stderr, /^error SPEC_INVALID: /);
      for (const field of ["model.layers", "model.dModle", "data"])
        assert.ok(stderr.includes(`  ${field}: `), `${field} in ${stderr}`);
    });

    it("gives programs the fields as JSON, on stdout alone", async () => {
      const answer = await json("submit", await writeSpec("{train: {steps: 0}}"));
      const { code, violations } = answer["error"] as { code: string; violations: { field: string }[] };
      assert.equal(code, "SPEC_INVALID");
      assert.ok(violations.some(({ field }) => field === "train.steps"));
    });

    it("names a file that it cannot read", async () => {
      const { exitCode, stderr } = await run("submit", join(dir, "missing.yaml"));
      assert.equal(exitCode, 2);
      assert.match(stderr, /^error FILE_UNREADABLE: .*missing\.yaml/);
    });

    it("watches to the end on request", async () => {
      coordinator.updates = [job(), job({ phase: JobPhase.SUCCEEDED, step: 100 })];
      const { exitCode, stdout } = await run("submit", await writeSpec(SPEC), "--watch");
      assert.equal(exitCode, 0);
      assert.match(
        stdout,
        /job-1 running on 2 workers\ngpu-1-abcdef is slow: 12\.3 ms a shard and step\n.*step 10\/100 .*loss 2\.5000 .*12\.3K tokens\/s\njob-1 succeeded\n.*100 %.*\n$/s,
      );
    });
  });

  describe("watch", () => {
    it("exits with 4 when the job fails", async () => {
      coordinator.updates = [job({ phase: JobPhase.FAILED, reason: "the loss is not a number" })];
      const { exitCode, stderr } = await run("watch", "job-1");
      assert.equal(exitCode, 4);
      assert.match(stderr, /^error JOB_FAILED: job-1 failed: the loss is not a number\n$/);
    });

    it("prints one JSON object for each update", async () => {
      coordinator.updates = [job(), job({ phase: JobPhase.SUCCEEDED, step: 100 })];
      const { stdout } = await run("watch", "job-1", "--json");
      const phases = stdout
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { phase: string }).phase);
      assert.deepEqual(phases, ["RUNNING", "SUCCEEDED"]);
    });
  });

  it("lists the jobs of all pages", async () => {
    const { stdout } = await run("jobs");
    assert.match(stdout, /^JOB +PHASE +STEP/);
    assert.match(stdout, /job-1 +running +10\/100 +2\.5000 +12\.3K +2/);
    assert.match(stdout, /job-2/);
  });

  it("shows a job with its spec, and its fields as plain JSON", async () => {
    assert.match((await run("job", "job-1")).stdout, /phase +running[^]*train:\n {2}steps: 100/);
    const view = await json("job", "job-1");
    assert.equal(view["phase"], "RUNNING");
    assert.equal(view["totalTokens"], 10_000);
    assert.equal((view["spec"] as { train: { steps: number } }).train.steps, 100);
  });

  it("steers jobs", async () => {
    assert.equal((await run("pause", "job-1")).stdout, "job-1 pausing\n");
    assert.equal((await run("resume", "job-1")).stdout, "job-1 running\n");
    assert.equal((await run("cancel", "job-1")).exitCode, 0);
  });

  it("edits a paused job, by itself or on resuming", async () => {
    const edited = await run("edit", "job-1", "--set", "train.steps=200", "--set", "evaluations=[{name: a}]");
    assert.equal(edited.stdout, "job-1 is changed: train.steps, evaluations; go on with: segue resume job-1\n");
    assert.match(edited.stderr, /warning: a warning/);
    assert.equal((await run("resume", "job-1", "--set", "optimizer.learningRate=1e-4")).exitCode, 0);
    assert.deepEqual(coordinator.edits, [
      { "train.steps": "200", evaluations: "[{name: a}]" },
      { "optimizer.learningRate": "1e-4" },
    ]);
    await run("edit", "job-1", "--set", "train.steps=200", "--decay-from-here");
    assert.deepEqual(coordinator.edits.at(-1), { "train.steps": "200", "schedule.decayFrom": "here" });
    assert.equal((await run("edit", "job-1")).exitCode, 2);
    assert.match((await run("edit", "job-1", "--set", "nonsense")).stderr, /path=value/);
  });

  it("lists workers and lets one leave", async () => {
    const line = /gpu-1-abcdef +training, slow +job-1 +0-1 +12\.3 +24\.7 +3\.21 +0\.5 +1 GiB +cpu \(AVX-512, 2 threads\)/;
    for (const args of [["workers"], ["workers", "list"]]) assert.match((await run(...args)).stdout, line);
    assert.match(
      (await run("job", "job-1")).stdout,
      /SHARD +COMPUTE +EXCHANGE +REST[^]*gpu-1-abcdef +2 +12\.3 +24\.7 +3\.21 +0\.5 +slow/,
    );
    const answer = await json("workers", "drain", "gpu-1-abcdef");
    assert.deepEqual([answer["workerId"], answer["state"]], ["gpu-1-abcdef", "draining"]);
  });

  it("shows what workers' GPUs are doing, where there are any", async () => {
    assert.doesNotMatch((await run("workers")).stdout, /GPU/);
    const gpu = create(GpuSchema, { ordinal: 1, name: "NVIDIA H200", uuid: "GPU-1", memoryBytes: 140n * 2n ** 30n });
    const load = { memoryUsedBytes: 83n * 2n ** 30n, utilisationPercent: 0, temperatureCelsius: 63 };
    const busy = create(WorkerInfoSchema, { ...worker, gpu, gpuLoad: create(GpuLoadSchema, load) });
    coordinator.workers = [busy, create(WorkerInfoSchema, { ...worker, workerId: "no-nvml", gpu }), worker];
    const { stdout } = await run("workers");
    assert.match(stdout, /MEMORY +GPU +GPU MEMORY +GPU USE +GPU TEMP +DEVICE\n/);
    assert.match(stdout, /gpu-1-abcdef .* 1 GiB +1 +83 GiB of 140 GiB +0 % +63 °C +cpu/);
    assert.match(stdout, /no-nvml .* 1 GiB +1 +140 GiB +cpu/);
    const [first, second, third] = (await json("workers")) as unknown as { gpu?: object }[];
    const known = { ordinal: 1, name: "NVIDIA H200", uuid: "GPU-1", memoryBytes: 140 * 2 ** 30, driverVersion: "" };
    assert.deepEqual(first?.gpu, { ...known, memoryUsedBytes: 83 * 2 ** 30, utilisationPercent: 0, temperatureCelsius: 63 });
    assert.deepEqual(second?.gpu, known);
    assert.equal(third?.gpu, undefined);
  });

  it("passes the coordinator's refusals on", async () => {
    const { exitCode, stderr } = await run("pause", "job-9");
    assert.equal(exitCode, 1);
    assert.equal(stderr, "error JOB_NOT_FOUND: There is no job job-9.\n");
  });

  it("lists checkpoints with step, digest, size and loss", async () => {
    assert.match((await run("checkpoints", "job-1")).stdout, /STEP +DIGEST[^]*20 +b{64} +1\.5000 +5 +2 KiB/);
  });

  it("queues evaluations as described on the command line", async () => {
    const answer = await json("eval", "job-1", "--lengths", "1K,300", "--depths", "0,0.5", "--samples", "7", "--no-carry");
    assert.equal(answer["cells"], 4);
    const [request] = coordinator.evaluationRequests;
    assert.deepEqual(request?.evaluation?.passkey?.lengths, [1024, 300]);
    assert.deepEqual(request?.evaluation?.passkey?.depths, [0, 0.5]);
    assert.equal(request?.evaluation?.passkey?.samples, 7);
    assert.equal(request?.evaluation?.passkey?.carryState, false);
  });

  it("queues evaluations of loss by position, and leaves defaults that depend on the job to the coordinator", async () => {
    await json("eval", "job-1", "--loss-by-position", "--tokens", "64K", "--prompt", "random", "--prompts", "8");
    const request = coordinator.evaluationRequests.at(-1);
    const { tokens, prompt, prompts, bucketTokens, trainTokens } = request?.evaluation?.lossByPosition ?? {};
    assert.deepEqual([tokens, prompt, prompts, bucketTokens, trainTokens], [65_536, "random", 8, undefined, undefined]);
    assert.equal(request?.evaluation?.passkey, undefined);
    assert.match(request?.evaluation?.name ?? "", /^loss-by-position-[0-9a-f]{8}$/);
  });

  it("queues state statistics and effective remembrance, and refuses to write a file of anything else", async () => {
    await json("eval", "job-1", "--states", "--tokens", "2K", "--prompt", "corpus");
    const { stateStatistics } = coordinator.evaluationRequests.at(-1)?.evaluation ?? {};
    assert.deepEqual([stateStatistics?.tokens, stateStatistics?.prompt, stateStatistics?.everyTokens], [2048, "corpus", undefined]);
    await json("eval", "job-1", "--remembrance", "--starts", "1,2K");
    assert.deepEqual(coordinator.evaluationRequests.at(-1)?.evaluation?.effectiveRemembrance?.starts, [1, 2048]);
    const refused = await run("eval", "job-1", "--remembrance", "--out", "file");
    assert.match(refused.stderr, /EVALUATION_OUT_INVALID/);
  });

  it("gives equal evaluations equal names and others another", async () => {
    const id = async (...args: string[]) => (await json("eval", "job-1", ...args))["evaluationId"];
    assert.equal(await id("--samples", "7"), await id("--samples", "7"));
    assert.notEqual(await id("--samples", "7"), await id("--samples", "8"));
  });

  it("tells sizes and predicted lengths of a model, and refuses one that cannot be", async () => {
    const answer = await segue(["capacity", "--layers", "8", "--d-model", "512", "--json"]);
    const { models } = JSON.parse(answer.stdout) as { models: { stateFloats: number; forgetTokens: number }[] };
    const [small, ...others] = models;
    assert.deepEqual(others, []);
    assert.equal(small?.stateFloats, 1_079_296);
    assert.equal(small.forgetTokens, Math.round((5.172 * 1.079296 - 4.469) * 1024));
    const { stdout } = await segue(["capacity"]);
    assert.match(stdout, /mamba2-370m +368,346,624 .* 62Ki +259Ki/);
    assert.match(stdout, /mamba2-36m: The linear law of forgetting means nothing under 0\.864M/);
    assert.equal((await segue(["capacity", "--layers", "8", "--d-model", "100"])).exitCode, 2);
  });

  describe("export", () => {
    it("writes a verified Hugging Face folder and nothing beside it", async () => {
      const { exitCode, stdout } = await run("export", "job-1", join(dir, "model"));
      assert.equal(exitCode, 0, stdout);
      const files = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
      assert.deepEqual((await readdir(join(dir, "model"))).sort(), files);
      assert.deepEqual(new Uint8Array(await readFile(join(dir, "model", "model.safetensors"))), MODEL_BYTES);
      const config = JSON.parse(await readFile(join(dir, "model", "config.json"), "utf8")) as Record<string, unknown>;
      assert.deepEqual([config["eos_token_id"], "time_step_limit" in config], [10, false]);
      assert.deepEqual(await readdir(dir), ["model"]);
    });

    it("rounds to bf16 and cuts into files of a size, and says which there are", async () => {
      const more = ["--dtype", "bf16", "--max-shard-size", "64KB", "--json"];
      const { exitCode, stdout } = await run("export", "job-1", join(dir, "model"), ...more);
      assert.equal(exitCode, 0, stdout);
      const { files, dtype } = JSON.parse(stdout) as { files: string[]; dtype: string };
      assert.equal(dtype, "bf16");
      assert.deepEqual((await readdir(join(dir, "model"))).sort(), files);
      assert.ok(files.includes("model.safetensors.index.json") && files.includes("model-00003-of-00003.safetensors"), stdout);
      assert.equal((await segue(["generate", join(dir, "model"), "--prompt", "a", "--tokens", "1"])).exitCode, 0);
    });

    it("leaves nothing behind when a file does not have the manifest's digest", async () => {
      const ref = "job/job-1/checkpoint/20/model.safetensors";
      coordinator.registry.remove(ref);
      coordinator.registry.publish(ref, { dtype: "u8", shape: [MODEL_BYTES.length], data: MODEL_BYTES.map((byte) => byte ^ 1) });
      const { exitCode, stderr } = await run("export", "job-1", join(dir, "model"));
      assert.equal(exitCode, 1);
      assert.match(stderr, /error CHECKPOINT_DAMAGED/);
      assert.deepEqual(await readdir(dir), []);
    });

    it("does not touch a folder that is not empty", async () => {
      await writeFile(join(dir, "precious"), "");
      assert.match((await run("export", "job-1", dir)).stderr, /^error FOLDER_NOT_EMPTY/);
    });

    it("names the steps there are when the wanted one is missing", async () => {
      const { exitCode, stderr } = await run("export", "job-1", join(dir, "model"), "--step", "7");
      assert.equal(exitCode, 1);
      assert.equal(stderr, "error CHECKPOINT_NOT_FOUND: job-1 has no checkpoint at step 7; it has: 20.\n");
    });
  });

  const usage: [string, string[], RegExp][] = [
    ["an unknown option", ["jobs", "--jsno"], /unknown option '--jsno'/],
    ["an unknown command", ["sumbit", "x"], /unknown command 'sumbit'/],
    ["a missing argument", ["watch"], /missing required argument 'job'/],
    ["a count that is none", ["eval", "job-1", "--samples", "many"], /must be a whole number from 1 to 10000/],
    ["a share beyond 1", ["eval", "job-1", "--depths", "0,2"], /shares between 0 and 1/],
    ["an engine there is not", ["cluster", "up", "--engine", "abacus"], /Allowed choices are auto, cuda, cpu, tfjs/],
  ];
  for (const [what, args, message] of usage) {
    it(`refuses ${what} with exit code 2`, async () => {
      const { exitCode, stderr } = await segue(args);
      assert.equal(exitCode, 2);
      assert.match(stderr, /^error USAGE: /);
      assert.match(stderr, message);
    });
  }

  it("refuses an address and an environment that are wrong with exit code 2", async () => {
    assert.equal((await segue(["jobs", "--coordinator", "nowhere"])).exitCode, 2);
    const { exitCode, stderr } = await segue(["jobs"], { SEGUE_CORDINATOR: "127.0.0.1:1" });
    assert.equal(exitCode, 2);
    assert.match(stderr, /did you mean SEGUE_COORDINATOR/);
  });

  it("exits with 3 and says what to do when nothing answers", async () => {
    const { exitCode, stderr } = await segue(["jobs"], { SEGUE_COORDINATOR: "127.0.0.1:1" });
    assert.equal(exitCode, 3);
    assert.match(stderr, /^error COORDINATOR_UNREACHABLE: No coordinator answers at 127\.0\.0\.1:1 .*segue cluster up/);
  });

  it("shows help with examples and exit codes", async () => {
    const { exitCode, stdout } = await segue(["--help"]);
    assert.equal(exitCode, 0);
    assert.match(stdout, /Exit codes:/);
    for (const command of [
      "submit",
      "jobs",
      "job",
      "watch",
      "pause",
      "resume",
      "cancel",
      "edit",
      "workers",
      "eval",
      "checkpoints",
      "export",
      "certs",
    ]) {
      assert.match((await segue([command, "--help"])).stdout, /Example/, command);
    }
  });
});

describe("segue against a coordinator with a token", () => {
  let coordinator: ScriptedCoordinator;
  let dir: string;
  before(async () => {
    coordinator = await startScriptedCoordinator({ token: "correct-horse-battery" });
    dir = await mkdtemp(join(tmpdir(), "segue-cli-"));
    await writeFile(join(dir, "token"), "correct-horse-battery\n");
  });
  after(async () => {
    await coordinator.close();
    await rm(dir, { recursive: true, force: true });
  });

  it("sends the token of --token-file", async () => {
    const args = ["jobs", "--coordinator", coordinator.address];
    assert.equal((await segue([...args, "--token-file", join(dir, "token")])).exitCode, 0);
    const { exitCode, stderr } = await segue(args);
    assert.equal(exitCode, 1);
    assert.match(stderr, /^error UNAUTHENTICATED: /);
  });
});
