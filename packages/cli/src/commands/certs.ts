import type { Command } from "commander";
import { SegueError } from "@segue/core";
import { createCertificates } from "@segue/runtime";
import { addJsonOption } from "../connection.js";
import { Output, type CliRuntime } from "../runtime.js";

export function addCertsCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("certs <dir>"))
    .description("make what listeners beyond this machine need: a private CA, a server certificate and a token")
    .option("--host <names...>", "names or addresses under which the services are reached, besides localhost")
    .option("--if-missing", "do nothing when the directory has them already")
    .addHelpText("after", "\nExample:\n  segue certs ./certs --host coordinator.example.org 10.0.0.5\n")
    .action(async (dir: string, options: { host?: string[]; ifMissing?: boolean; json?: boolean }) => {
      const output = new Output(runtime, options.json === true);
      const made = await createCertificates(dir, options.host ?? []).catch((error: unknown) => {
        if (options.ifMissing && error instanceof SegueError && error.code === "CERTIFICATES_EXIST") return undefined;
        throw error;
      });
      if (!made) return output.result({ dir, kept: true }, () => `${dir} has certificates and a token already; they are kept.`);
      output.result(made, () =>
        [
          `SEGUE_TLS_CERT=${made.cert}`,
          `SEGUE_TLS_KEY=${made.key}`,
          `SEGUE_TLS_CA=${made.ca}`,
          `SEGUE_TOKEN_FILE=${made.token}`,
          `# Keep ${made.caKey} safe and away from the services: it can make certificates they trust.`,
        ].join("\n"),
      );
    });
}
