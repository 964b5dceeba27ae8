import { register } from "tsx/esm/api";

register();
await import("./device-engine.ts");
