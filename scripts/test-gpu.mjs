/**
 * Runs the suites that need a GPU (`packages/engine/test/gpu`, `services/worker/test/gpu`). Where there is none it says so and exits with code 3: nothing was tested, and
 * nobody may take that for a pass. Arguments go to mocha.
 */
import { spawnSync } from "node:child_process";
import { root, run } from "./steps.mjs";

const NO_GPU = 3;
const source = ["--import=tsx", "--conditions=segue-source"];

const probe = `
  const { availableEngines } = await import("@segue/engine");
  const cuda = (await availableEngines()).find(({ name }) => name === "cuda");
  process.stdout.write(JSON.stringify(cuda));
`;
const { stdout, status } = spawnSync(process.execPath, [...source, "--input-type=module", "-e", probe], {
  cwd: root,
  encoding: "utf8",
  stdio: ["ignore", "pipe", "inherit"],
});
if (status !== 0) process.exit(1);
const cuda = JSON.parse(stdout.slice(stdout.indexOf("{")));
if (cuda.reason !== undefined) {
  console.error(`no GPU tests were run: ${cuda.reason}`);
  process.exit(NO_GPU);
}
console.log(cuda.detail);
process.exit(run("mocha", ["packages/engine/test/gpu/cuda-*.ts", "services/worker/test/gpu/*.ts", ...process.argv.slice(2)]));
