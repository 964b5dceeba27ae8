import { relative } from "node:path";

const NAMES_TOLD = 3;

/** What `data.paths` leads to and training does not read, to be said in a few sentences. */
export class LeftOut {
  readonly #baseDir: string;
  readonly #otherKinds: string[] = [];
  readonly #hidden: string[] = [];
  readonly #again: string[] = [];
  readonly #hardLinks: string[] = [];

  /** @param baseDir what paths are told relative to */
  constructor(baseDir: string) {
    this.#baseDir = baseDir;
  }

  otherKind(path: string): void {
    this.#otherKinds.push(path);
  }

  hidden(paths: readonly string[]): void {
    this.#hidden.push(...paths);
  }

  /** Names of files or folders that are read already. */
  again(...paths: string[]): void {
    this.#again.push(...paths);
  }

  /** A further hard link to a file: nothing tells it from a copy, so it is read. */
  hardLink(path: string): void {
    this.#hardLinks.push(path);
  }

  /** @param kinds endings of what is read, for people */
  sentences(kinds: string): string[] {
    return [
      ...this.#sentence("file", this.#otherKinds, `left out, not being ${kinds}`),
      ...this.#sentence("name", this.#hidden, "left out, beginning with a dot"),
      ...this.#sentence("name", this.#again, "left out, leading to what is read already"),
      ...this.#sentence("file", this.#hardLinks, "read although another hard link to the same content is read, too"),
    ];
  }

  #sentence(noun: string, paths: readonly string[], what: string): string[] {
    if (paths.length === 0) return [];
    const names = paths.slice(0, NAMES_TOLD).map((path) => relative(this.#baseDir, path));
    const more = paths.length - names.length;
    const subject = paths.length === 1 ? `1 ${noun} is` : `${paths.length} ${noun}s are`;
    return [`data.paths: ${subject} ${what}: ${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`];
  }
}
