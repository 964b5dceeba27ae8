import { register } from "tsx/esm/api";

// Compute threads start without the TypeScript loader of the test's own thread.
register();
await import("./fake-engine.ts");
