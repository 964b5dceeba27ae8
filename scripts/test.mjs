/**
 * Sets up, then runs the unit suites and the suites that span packages.
 * `npm test -- FILE...` runs these files alone; other arguments go to mocha (`npm test -- --grep lanes`).
 * `--quick` (`npm run test:quick`): the unit suites. `--exactness` (`npm run test:exactness`): the exactness suite alone, in its full form.
 */
import { spawn } from "node:child_process";
import { stripVTControlCharacters } from "node:util";
import { root, toolEnvironment } from "./steps.mjs";
import { setupOrExit } from "./setup.mjs";

const suites = {
  unit: ["packages/*/test/**/*.test.ts", "services/*/test/**/*.test.ts"],
  // Whole clusters of processes: each test may take minutes.
  integration: ["test/**/*.test.ts"],
  exactness: ["test/exactness/*.test.ts"],
};

/** After the summary, for a mocha that cannot end itself (test/helpers/exit.ts does after a minute), as when native code hangs. */
const EXIT_MS = 90_000;
const LEFT_BEHIND_MS = 10_000;

if (process.argv.includes("--exactness")) process.env.EXACTNESS = "full";
const mochaArguments = process.argv.slice(2).filter((argument) => !["--quick", "--exactness"].includes(argument));
const names = mochaArguments.some((argument) => argument.endsWith(".ts"))
  ? []
  : process.argv.includes("--quick")
    ? ["unit"]
    : process.argv.includes("--exactness")
      ? ["exactness"]
      : ["unit", "integration"];

/** Runs mocha, showing what it prints, and counts. A mocha that dies without counting, or does not end, is one failure. */
function runMocha(files) {
  return new Promise((resolve) => {
    const mocha = spawn("mocha", [...(process.stdout.isTTY ? ["--color"] : []), ...files, ...mochaArguments], {
      cwd: root,
      env: toolEnvironment(),
      stdio: ["inherit", "pipe", "inherit"],
    });
    let tail = "";
    let passed = 0;
    let failed = 0;
    let pending = 0;
    let watchdog;
    mocha.stdout.on("data", (data) => {
      process.stdout.write(data);
      const lines = (tail + data.toString()).split("\n");
      tail = lines.pop() ?? "";
      for (const line of lines) {
        const [, count, outcome] = /^\s*(\d+) (passing|failing|pending)/.exec(stripVTControlCharacters(line)) ?? [];
        if (outcome === "passing") passed += Number(count);
        if (outcome === "failing") failed += Number(count);
        if (outcome === "pending") pending += Number(count);
        if (outcome !== undefined) watchdog ??= setTimeout(() => end(mocha), EXIT_MS);
      }
    });
    mocha.on("error", (error) => {
      console.error(`error: cannot run mocha: ${error.message}`);
      resolve({ passed: 0, failed: 1, pending: 0 });
    });
    mocha.on("exit", (status) => {
      clearTimeout(watchdog);
      const finish = () => resolve({ passed, pending, failed: status === 0 ? failed : Math.max(failed, 1) });
      mocha.on("close", finish);
      // A process that a test left behind may hold the pipe for ever.
      setTimeout(finish, LEFT_BEHIND_MS);
    });
  });
}

/** Mocha passes SIGINT on to the process that runs the tests, with a SIGTERM behind it. */
function end(mocha) {
  console.error(`error: mocha did not end within ${EXIT_MS / 1000} s of its summary and cannot say why: it is killed`);
  mocha.kill("SIGINT");
}

setupOrExit();
const results = [];
for (const files of names.length === 0 ? [[]] : names.map((name) => suites[name])) results.push(await runMocha(files));
const passed = results.reduce((sum, result) => sum + result.passed, 0);
const failed = results.reduce((sum, result) => sum + result.failed, 0);
// What was skipped for want of something on this machine was not tested.
const pending = results.reduce((sum, result) => sum + result.pending, 0);
console.log(`${passed} passed, ${failed} failed${pending > 0 ? `, ${pending} pending` : ""}`);
process.exit(failed === 0 ? 0 : 1);
