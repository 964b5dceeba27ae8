import { availableEngines, createEngine, drawParameters, ncclVersion } from "@segue/engine";
import { serveCompute } from "./serve.js";

serveCompute({ availableEngines, createEngine, drawParameters, ncclVersion });
