/**
 * Sets up, then runs the unit suites and the suites that span packages. Arguments go to mocha (`npm test -- --grep lanes`).
 * With --exactness (`npm run test:exactness`) runs the exactness suite alone, in its full form.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { root, toolEnvironment } from "./steps.mjs";
import { setupOrExit } from "./setup.mjs";

const wholeClusters = [
  "--no-config",
  "--node-option=import=tsx",
  "--node-option=conditions=segue-source",
  "--extension=ts",
  "--timeout=300000",
];

const suites = {
  unit: ["--config", ".mocharc.json"],
  // Whole clusters of processes: each test may take minutes.
  integration: [...wholeClusters, "test/**/*.test.ts"],
  exactness: [...wholeClusters, "test/exactness/*.test.ts"],
};

const exactnessOnly = process.argv.includes("--exactness");
const mochaArguments = process.argv.slice(2).filter((argument) => argument !== "--exactness");

/** Runs mocha, showing what it prints, and counts. A mocha that dies without counting is one failure. */
function runSuite(args) {
  return new Promise((resolve) => {
    const mocha = spawn("mocha", [...(process.stdout.isTTY ? ["--color"] : []), ...args, ...mochaArguments], {
      cwd: root,
      env: toolEnvironment(),
      stdio: ["inherit", "pipe", "inherit"],
    });
    let tail = "";
    let passed = 0;
    let failed = 0;
    mocha.stdout.on("data", (data) => {
      process.stdout.write(data);
      const lines = (tail + data.toString()).split("\n");
      tail = lines.pop() ?? "";
      for (const line of lines) {
        const [, count, outcome] = /^\s*(\d+) (passing|failing)/.exec(stripVTControlCharacters(line)) ?? [];
        if (outcome === "passing") passed += Number(count);
        if (outcome === "failing") failed += Number(count);
      }
    });
    mocha.on("error", (error) => {
      console.error(`error: cannot run mocha: ${error.message}`);
      resolve({ passed: 0, failed: 1 });
    });
    mocha.on("close", (status) => resolve({ passed, failed: status === 0 ? failed : Math.max(failed, 1) }));
  });
}

function hasIntegrationTests() {
  const folder = join(root, "test");
  return existsSync(folder) && readdirSync(folder, { recursive: true }).some((name) => name.endsWith(".test.ts"));
}

setupOrExit();
const results = [];
if (exactnessOnly) {
  process.env.EXACTNESS = "full";
  results.push(await runSuite(suites.exactness));
} else {
  results.push(await runSuite(suites.unit));
  if (hasIntegrationTests()) results.push(await runSuite(suites.integration));
}
const passed = results.reduce((sum, result) => sum + result.passed, 0);
const failed = results.reduce((sum, result) => sum + result.failed, 0);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
