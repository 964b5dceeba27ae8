import type { Command } from "commander";
import { createCertificates } from "@segue/runtime";
import { addJsonOption } from "../connection.js";
import { Output, type CliRuntime } from "../runtime.js";

export function addCertsCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("certs <dir>"))
    .description("make what listeners beyond this machine need: a private CA, a server certificate and a token")
    .option("--host <names...>", "names or addresses under which the services are reached, besides localhost")
    .addHelpText("after", "\nExample:\n  segue certs ./certs --host coordinator.example.org 10.0.0.5\n")
    .action(async (dir: string, options: { host?: string[]; json?: boolean }) => {
      const made = await createCertificates(dir, options.host ?? []);
      new Output(runtime, options.json === true).result(made, () =>
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
