/** Sets up, then runs the demo with the arguments given here (`npm run demo -- --help`). */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { root } from "./steps.mjs";
import { setupOrExit } from "./setup.mjs";

setupOrExit();
const demo = spawn(process.execPath, [join(root, "packages", "cli", "dist", "demo.js"), ...process.argv.slice(2)], {
  cwd: root,
  stdio: "inherit",
});
// A terminal's Ctrl-C reaches the demo by itself; this process only has to outlive its orderly stop.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => demo.kill("SIGTERM"));
demo.on("close", (status) => process.exit(status ?? 1));
