import { SegueError } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { checkpointFolderName, MANIFEST, parseManifest, stepOfFolderName, type Manifest } from "./manifest.js";
import type { ObjectStore } from "./object-store.js";

/** A checkpoint in an object store, by its manifest. */
export interface Copy {
  readonly manifest: Manifest;
  /** Its files that are not there, or not as the manifest says. None: it is whole, as far as is known. */
  readonly missing: readonly string[];
}

/** Manifests that are read at a time. */
const READS_IN_FLIGHT = 8;

/**
 * The copies in an object store, each compared with its manifest file by file: what is there, and how large. Manifests that cannot be
 * read are passed over with a warning. @param ofJob absent: of all jobs. @throws errors of the object store
 */
export async function readCopies(objects: ObjectStore, logger: Logger, ofJob?: string): Promise<Copy[]> {
  const sizes = new Map((await objects.list()).map(({ key, bytes }) => [key, bytes]));
  const isWanted = (key: string): boolean => ofJob === undefined || key.startsWith(`${ofJob}/`);
  const keys = [...sizes.keys()].filter((key) => isWanted(key) && stepOfKey(key) !== undefined && key.endsWith(`/${MANIFEST}`));
  const copies: Copy[] = [];
  for (let at = 0; at < keys.length; at += READS_IN_FLIGHT) {
    const read = keys.slice(at, at + READS_IN_FLIGHT).map((key) => readCopy(objects, key, sizes, logger));
    for (const copy of await Promise.all(read)) if (copy) copies.push(copy);
  }
  return copies;
}

/** Where a file of a checkpoint is in an object store. */
export function copyKey({ jobId, step }: Manifest, file: string): string {
  return `${jobId}/${checkpointFolderName(step)}/${file}`;
}

async function readCopy(
  objects: ObjectStore,
  key: string,
  sizes: ReadonlyMap<string, number>,
  logger: Logger,
): Promise<Copy | undefined> {
  const [jobId = "", folder = ""] = key.split("/");
  const step = stepOfKey(key);
  const json = await objects.read(key);
  if (!json) return undefined;
  try {
    const manifest = parseManifest(Buffer.from(json).toString("utf8"), `${objects.url}/${jobId}/${folder}`);
    if (manifest.jobId !== jobId || manifest.step !== step) return undefined;
    const files = Object.entries(manifest.files);
    const missing = files.flatMap(([name, { bytes }]) => (sizes.get(copyKey(manifest, name)) === bytes ? [] : [name]));
    if (missing.length > 0) {
      logger.warn({ event: "copyDamaged", jobId, step, missing, url: objects.url }, "a copy of a checkpoint lacks files");
    }
    return { manifest, missing };
  } catch (error) {
    if (!(error instanceof SegueError)) throw error;
    logger.warn({ event: "checkpointDamaged", jobId, step, err: error }, "a damaged copy of a checkpoint is passed over");
    return undefined;
  }
}

/** The step of `<job id>/step-<step>/<file>`; undefined when a key is none of these. */
function stepOfKey(key: string): number | undefined {
  const [, folder = "", file, ...more] = key.split("/");
  return file === undefined || more.length > 0 ? undefined : stepOfFolderName(folder);
}
