/** Makes a checkout ready to run: npm packages, redis-server, a C++ compiler, the build. Does only what is missing. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { findProgram, root, run } from "./steps.mjs";

const oldestNode = [20, 19];

function nodeIsRecent() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1]);
}

/** npm writes node_modules/.package-lock.json last, so its time tells a finished install of which lock file. */
function packagesAreInstalled() {
  const installed = join(root, "node_modules", ".package-lock.json");
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(root, "package-lock.json")).mtimeMs;
}

/** What the machine lacks: Debian package and the sentence for somebody who has to install it. */
function missingPrograms() {
  const missing = [];
  if (!process.env.REDIS_URL && !findProgram("redis-server")) {
    missing.push({
      debianPackage: "redis-server",
      advice: "Install the package redis-server, or set REDIS_URL: local clusters, the demo and some tests need a Redis.",
    });
  }
  if (!["c++", "g++", "clang++", process.env.CXX].some((name) => name && findProgram(name))) {
    missing.push({
      debianPackage: "g++",
      advice: "Install a C++ compiler (package g++): without one, training uses TensorFlow.js and is many times slower.",
    });
  }
  return missing;
}

function installPrograms() {
  const packages = missingPrograms().map(({ debianPackage }) => debianPackage);
  const canInstall = process.getuid?.() === 0 && existsSync("/etc/debian_version") && findProgram("apt-get");
  if (packages.length > 0 && canInstall) {
    console.log(`setup: apt-get install ${packages.join(" ")}`);
    const install = () =>
      run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], { DEBIAN_FRONTEND: "noninteractive" });
    // Package lists may be missing (containers) or too old: refresh them first, and try even if that fails.
    run("apt-get", ["update", "-qq"]);
    install();
  }
  for (const { advice } of missingPrograms()) console.error(`setup: ${advice}`);
}

/** Throws an Error with a sentence when the checkout cannot be made ready. */
export function setup() {
  if (!nodeIsRecent()) {
    throw new Error(`Segue needs Node.js ${oldestNode.join(".")} or newer; this is ${process.versions.node}.`);
  }
  if (!packagesAreInstalled()) {
    console.log("setup: npm ci");
    if (run("npm", ["ci", "--no-audit", "--no-fund"]) !== 0) throw new Error("npm ci failed; see its messages above.");
  }
  installPrograms();
  if (run("tsc", ["-b"]) !== 0) throw new Error("The build failed; see the compiler's messages above.");
}

/** Runs setup and ends the process with its sentence when it fails. */
export function setupOrExit() {
  try {
    setup();
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exit(1);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) setupOrExit();
