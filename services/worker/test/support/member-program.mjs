// A member as the supervisor sees it: answers on the descriptor it is given and lives until it is told to end. Some are refused.
import { closeSync, writeSync } from "node:fs";

const { SEGUE_NAME: name = "", SEGUE_READY_FD: ready } = process.env;
if (name.startsWith("refused")) process.exit(1);
process.on("SIGTERM", () => process.exit(0)).on("disconnect", () => process.exit(0));
writeSync(Number(ready), `${JSON.stringify({ ready: true, address: name })}\n`);
closeSync(Number(ready));
