/** Starts native-worker.ts in a worker thread: tsx does not follow into threads by itself. */
import { register } from "tsx/esm/api";

register();
await import("./native-worker.ts");
