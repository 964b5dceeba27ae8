/** Writes stored.json, what transformers 5.24 or newer makes of the exports, for machines without it: `tsx --conditions=segue-source make-stored.ts`. */
import { rm, writeFile } from "node:fs/promises";
import { CASES, exported, findPython, isFrom, loadWith, type Found } from "./cases.js";

const python = findPython();
if (!python || !isFrom(python.version, "5.24")) throw new Error("SEGUE_TEST_PYTHON must have transformers 5.24 or newer");
const folders = await Promise.all(Object.values(CASES).map(exported));
const found = loadWith(python, folders);
const stored: Record<string, Found> = Object.fromEntries(Object.keys(CASES).map((name, i) => [name, found[i]!]));
await writeFile(new URL("stored.json", import.meta.url), `${JSON.stringify(stored)}\n`);
await Promise.all(folders.map((folder) => rm(folder, { recursive: true })));
