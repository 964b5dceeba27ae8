import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { SegueError } from "@segue/core";
import { z } from "zod";
import { commonSettings, isLoopback, readSettings, securityFromSettings, settings } from "../src/index.js";

const repository = join(import.meta.dirname, "../../..");
const schema = z.object({ ...commonSettings, SEGUE_LISTEN: settings.SEGUE_LISTEN.default("127.0.0.1:7070") });

describe("readSettings", () => {
  it("fills in defaults, converts numbers, and takes empty variables for absent ones", () => {
    const read = readSettings(schema, { SEGUE_READY_FD: "3", SEGUE_TLS_CA: "", PATH: "/bin" });
    assert.deepEqual(read, { SEGUE_LISTEN: "127.0.0.1:7070", SEGUE_LOG_LEVEL: "info", SEGUE_READY_FD: 3 });
  });

  it("refuses unknown names, each with the nearest known one, and malformed values, all at once", () => {
    const read = () => readSettings(schema, { SEGUE_LISTN: "x", SEGUE_LOG_LEVEL: "loud", SEGUE_LISTEN: "7070" });
    assert.throws(read, (error) => {
      assert.ok(error instanceof SegueError);
      assert.equal(error.code, "SETTINGS_INVALID");
      assert.deepEqual(error.violations?.map(({ field }) => field).sort(), ["SEGUE_LISTEN", "SEGUE_LISTN", "SEGUE_LOG_LEVEL"]);
      assert.match(error.message, /did you mean SEGUE_LISTEN\?/);
      return true;
    });
  });

  it("ignores settings of other services", () => {
    assert.doesNotThrow(() => readSettings(schema, { SEGUE_STORE: "/data", SEGUE_THREADS: "4" }));
  });

  it("knows exactly the settings of docs/reference/environment.md", () => {
    const text = readFileSync(join(repository, "docs/reference/environment.md"), "utf8");
    const documented = new Set(text.match(/`(SEGUE_[A-Z0-9_]+[A-Z0-9]|REDIS_URL)`/g)?.map((name) => name.slice(1, -1)));
    assert.deepEqual([...documented].sort(), Object.keys(settings).sort());
  });
});

describe("security settings", () => {
  it("need certificate and key together", () => {
    assert.throws(() => securityFromSettings({ SEGUE_TLS_CERT: "a.pem" }), { code: "TLS_INCOMPLETE" });
  });

  it("name the setting whose file cannot be read", () => {
    assert.throws(
      () => securityFromSettings({ SEGUE_TOKEN_FILE: "/nowhere/token" }),
      /SEGUE_TOKEN_FILE: cannot read \/nowhere\/token/,
    );
  });

  it("tell loopback from the rest", () => {
    for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"]) assert.equal(isLoopback(host), true, host);
    for (const host of ["0.0.0.0", "::", "127.0.0.1.example", "example", "10.0.0.1", ""])
      assert.equal(isLoopback(host), false, host);
  });
});

describe("docs/reference/errors.md", () => {
  it("lists every code that the sources raise, and no other", () => {
    const raised = new Map<string, string>();
    const sources: string[] = [];
    for (const file of sourceFiles()) {
      const text = readFileSync(file, "utf8");
      sources.push(text);
      for (const match of text.matchAll(/new (?:SegueError\(|RpcError\(\s*[\w.]+,)\s*"([A-Z0-9_]+)"/g))
        raised.set(match[1] ?? "", file);
    }
    const page = readFileSync(join(repository, "docs/reference/errors.md"), "utf8");
    const listed = new Set([...page.matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map((match) => match[1]));
    const missing = [...raised].filter(([code]) => !listed.has(code)).map(([code, file]) => `${code} (${file})`);
    assert.deepEqual(missing, [], "raised but not listed");
    // Some are raised through a constant or as an alternative, so any mention in the sources counts here.
    const never = [...listed].filter((code) => !sources.some((text) => text.includes(`"${code}"`)));
    assert.deepEqual(never, [], "listed but never raised");
  });
});

function sourceFiles(): string[] {
  return ["packages", "services"].flatMap((group) =>
    readdirSync(join(repository, group)).flatMap((name) => {
      const source = join(repository, group, name, "src");
      return readdirSync(source, { recursive: true, encoding: "utf8" })
        .filter((file) => file.endsWith(".ts") && !/^gen\//.test(file))
        .map((file) => join(source, file));
    }),
  );
}
