import { availableEngines, createEngine, drawParameters } from "@segue/engine";
import { serveCompute } from "./serve.js";

serveCompute({ availableEngines, createEngine, drawParameters });
