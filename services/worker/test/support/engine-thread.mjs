import { register } from "tsx/esm/api";

register();
await import("../../src/compute/thread.ts");
