import { availableEngines, createEngine, initialParameters } from "@segue/engine";
import { serveCompute } from "./serve.js";

serveCompute({ availableEngines, createEngine, initialParameters });
