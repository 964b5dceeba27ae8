import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { decodeSafetensors, encodeSafetensors } from "@segue/core";
import { EXIT, runCli } from "@segue/cli";
import { segue } from "./support/scripted-coordinator.js";

const SSD = fileURLToPath(new URL("../../engine/test/golden/ssd", import.meta.url));
const TINY = fileURLToPath(new URL("../../engine/test/golden/tiny", import.meta.url));

describe("segue verify", () => {
  let dir: string;
  beforeEach(async () => (dir = await mkdtemp(join(tmpdir(), "segue-verify-cli-"))));
  afterEach(() => rm(dir, { recursive: true }));

  it("prints the engine first, then every quantity whole and cut, and exits with 0", async () => {
    const { exitCode, stdout } = await segue(["verify", TINY, "--engine", "cpu", "--threads", "1"]);
    assert.equal(exitCode, 0, stdout);
    const [first, second, ...rest] = stdout.split("\n");
    assert.match(first!, /^engine {2}cpu \(.*1 thread/);
    assert.match(second!, /golden values$/);
    const text = rest.join("\n");
    assert.match(
      text,
      /In one segment of 2 x 50 tokens\nQUANTITY +AGAINST +RELATIVE L2 +LIMIT +RESULT\nloss +golden +\d\.\de-\d+ +1e-5 +pass\n/,
    );
    assert.match(text, /In segments of 2 x 17 tokens, states carried\n[^]*final SSM states +reference +\d\.\de-\d+ +1e-5 +pass\n/);
    assert.equal(text.match(/^gradient backbone\.layers\.1\.mixer\.A_log .* 1e-4 +pass$/gm)?.length, 3);
    assert.match(text, /\nGradients through all segments of 2 x 17 tokens [^]*gradient backbone\.norm_f\.weight +golden /);
    assert.match(text, /\npassed: all \d+ within their limits, the closest is .* % of its\n$/);
  });

  it("verifies a scan alone, exits with 1 when a value is wrong, and with 2 when one is missing", async () => {
    const good = await segue(["verify", SSD, "--engine", "cpu", "--threads", "1"]);
    assert.equal(good.exitCode, 0, good.stdout);
    assert.match(good.stdout, /\nScan 1: 1 x 61 tokens, 6 heads of 7, state 20, B\/C groups 2\nDEVICE +RUN +QUANTITY /);
    assert.match(good.stdout, /\ncpu +cut +gradient initial_state +\d\.\de-\d+ +1e-4 +pass\n/);
    assert.match(good.stdout, /\npassed: all 120 within their limits\n$/);
    const tensors = decodeSafetensors(await readFile(join(SSD, "golden.safetensors")));
    const final = tensors.get("2.final_state")!;
    const write = (): Promise<void> => writeFile(join(dir, "golden.safetensors"), encodeSafetensors([...tensors.values()]));
    tensors.set(final.name, { ...final, data: new Uint8Array(final.data.length) });
    await write();
    const wrong = await segue(["verify", dir, "--engine", "cpu", "--json"]);
    assert.equal(wrong.exitCode, 1);
    const { passed, measurements } = JSON.parse(wrong.stdout) as { passed: boolean; measurements: Record<string, unknown>[] };
    assert.equal(passed, false);
    const failed = measurements.filter(({ pass }) => pass === false).map(({ device, run, quantity }) => [device, run, quantity]);
    assert.deepEqual(failed, [
      ["reference", "whole", "final_state"],
      ["reference", "cut", "final_state"],
      ["cpu", "whole", "final_state"],
      ["cpu", "cut", "final_state"],
    ]);
    tensors.delete("0.y");
    await write();
    assert.equal((await segue(["verify", dir, "--engine", "cpu"])).exitCode, 2);
  });

  it("gives programs one JSON object", async () => {
    const { exitCode, stdout, stderr } = await segue(["verify", TINY, "--engine", "cpu", "--segment", "20", "--json"]);
    assert.deepEqual([exitCode, stderr], [0, ""]);
    const report = JSON.parse(stdout) as Record<string, unknown> & { measurements: Record<string, unknown>[] };
    assert.deepEqual(
      [report["passed"], report["golden"], report["lanes"], report["tokens"], report["segmentTokens"]],
      [true, true, 2, 50, 20],
    );
    assert.equal((report["engine"] as { name: string }).name, "cpu");
    assert.deepEqual(Object.keys(report.measurements[0]!), ["run", "quantity", "against", "error", "limit", "pass"]);
  });

  it("exits with 1 and marks what fails when a golden value is not what the engine computes", async () => {
    await cp(TINY, dir, { recursive: true });
    const path = join(dir, "golden.safetensors");
    const tensors = decodeSafetensors(await readFile(path));
    const name = "grad.backbone.layers.0.mixer.D";
    const gradient = tensors.get(name)!;
    tensors.set(name, { ...gradient, data: new Uint8Array(gradient.data.length) });
    await writeFile(path, encodeSafetensors([...tensors.values()]));
    const text = await segue(["verify", dir, "--engine", "cpu"]);
    assert.equal(text.exitCode, 1);
    assert.deepEqual(
      text.stdout.match(/^.*FAIL$/gm)?.map((line) => line.replace(/ .*/, "")),
      ["gradient", "gradient"],
    );
    assert.match(
      text.stdout,
      /gradient backbone\.layers\.0\.mixer\.D +golden .* FAIL\n[^]*FAILED: 2 of \d+ beyond their limits\n$/,
    );
    const json = await segue(["verify", dir, "--engine", "cpu", "--json"]);
    assert.equal(json.exitCode, 1);
    assert.equal((JSON.parse(json.stdout) as { passed: boolean }).passed, false);
  });

  it("verifies a folder without golden values against the reference, in either layout", async () => {
    await writeStateSpacesFolder(dir);
    const { exitCode, stdout } = await segue(["verify", dir, "--engine", "cpu", "--tokens", "40", "--lanes", "3", "--seed", "5"]);
    assert.equal(exitCode, 0, stdout);
    assert.match(stdout, /no golden values, random tokens/);
    assert.match(stdout, /In segments of 3 x 14 tokens/);
    assert.doesNotMatch(stdout, / golden +\d/);
  });

  it("exits with 2 and says why when a folder or the command line is not right", async () => {
    const empty = await segue(["verify", dir]);
    assert.equal(empty.exitCode, 2);
    assert.match(empty.stderr, /^error VERIFY_FOLDER_INVALID: .*config\.json/);
    await cp(TINY, dir, { recursive: true });
    await writeFile(join(dir, "model.safetensors"), "x");
    const damaged = await segue(["verify", dir, "--json"]);
    assert.equal(damaged.exitCode, 2);
    assert.equal((JSON.parse(damaged.stdout) as { error: { code: string } }).error.code, "VERIFY_FOLDER_INVALID");
    assert.equal((await segue(["verify", TINY, "--engine", "tpu"])).exitCode, 2);
    assert.equal((await segue(["verify", TINY, "--tokens", "0"])).exitCode, 2);
  });

  it("stops when it is interrupted", async () => {
    const sink = { write: () => undefined };
    const exitCode = await runCli(["verify", TINY, "--engine", "cpu"], {
      ...{ stdout: sink, stderr: sink, env: {} },
      signal: AbortSignal.abort(),
    });
    assert.equal(exitCode, EXIT.interrupted);
  });
});

/** The tiny golden model without its golden values, as state-spaces/mamba saves it: other keys, other names, the tied head stored. */
async function writeStateSpacesFolder(folder: string): Promise<void> {
  const config = JSON.parse(await readFile(join(TINY, "config.json"), "utf8")) as Record<string, number>;
  const tensors = [...decodeSafetensors(await readFile(join(TINY, "model.safetensors"))).values()];
  const embedding = tensors.find(({ name }) => name === "backbone.embeddings.weight")!;
  const named = tensors
    .filter(({ name }) => name !== "lm_head.weight")
    .map((tensor) => ({ ...tensor, name: tensor.name.replace("embeddings", "embedding") }));
  await writeFile(join(folder, "model.safetensors"), encodeSafetensors([...named, { ...embedding, name: "lm_head.weight" }]));
  await writeFile(
    join(folder, "config.json"),
    JSON.stringify({
      d_model: config["hidden_size"],
      n_layer: config["num_hidden_layers"],
      // Less than the tensors have: padded to a multiple of 16.
      vocab_size: config["vocab_size"]! - 5,
      pad_vocab_size_multiple: 16,
      ssm_cfg: { layer: "Mamba2", d_state: config["state_size"], headdim: config["head_dim"], chunk_size: config["chunk_size"] },
      rms_norm: true,
      tie_embeddings: true,
    }),
  );
}
