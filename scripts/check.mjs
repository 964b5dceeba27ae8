/** Everything that can be said about the code without running it. All steps run; the exit status is 1 when any failed. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, run, seconds } from "./steps.mjs";
import { setupOrExit } from "./setup.mjs";

const generated = join("packages", "protocol", "src", "gen");

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** Generates the protocol's code again beside the committed one: 0 when they are equal to the byte. */
function compareGeneratedCode() {
  const fresh = mkdtempSync(join(tmpdir(), "segue-gen-"));
  try {
    const status = run("buf", ["generate", "--output", fresh]);
    if (status !== 0) return status;
    const [committedFolder, freshFolder] = [join(root, generated), join(fresh, generated)];
    const names = new Set([...filesUnder(committedFolder), ...filesUnder(freshFolder)]);
    const read = (folder, name) => {
      try {
        return readFileSync(join(folder, name), "utf8");
      } catch {
        return undefined;
      }
    };
    const stale = [...names].filter((name) => read(committedFolder, name) !== read(freshFolder, name));
    for (const name of stale) console.error(`${join(generated, name)} differs from what proto/ says: run npm run gen`);
    return stale.length === 0 ? 0 : 1;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

const steps = [
  ["format", () => run("prettier", ["--check", "--log-level", "warn", "."])],
  ["lint", () => run("eslint", ["."])],
  ["types", () => run("tsc", ["-p", "tsconfig.test.json"])],
  ["boundaries", () => run("depcruise", ["--config", ".dependency-cruiser.cjs", "packages", "services"])],
  ["proto", () => run("buf", ["lint"])],
  ["generated code", compareGeneratedCode],
];

const startedAtMs = Date.now();
setupOrExit();
console.log(`check: build ok (${seconds(startedAtMs)})`);
const failed = steps.filter(([name, step]) => {
  const stepStartedAtMs = Date.now();
  const ok = step() === 0;
  console.log(`check: ${name} ${ok ? "ok" : "FAILED"} (${seconds(stepStartedAtMs)})`);
  return !ok;
});
if (failed.length > 0) {
  console.error(`check: failed: ${failed.map(([name]) => name).join(", ")}`);
  process.exit(1);
}
