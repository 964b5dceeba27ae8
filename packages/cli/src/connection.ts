import { Option, type Command } from "commander";
import { Jobs, Tensors, type Client } from "@segue/protocol";
import {
  commonSettings,
  connectClient,
  connectRedis,
  createLogger,
  readSettings,
  securityFromSettings,
  settings,
} from "@segue/runtime";
import { z } from "zod";
import { asFailure } from "./failure.js";
import { Output, type CliRuntime } from "./runtime.js";

/** Options of every command that talks to a coordinator; commander's names for them. */
export interface ConnectionOptions {
  readonly coordinator?: string;
  readonly tokenFile?: string;
  readonly tlsCa?: string;
  readonly json?: boolean;
}

/** The coordinator's services. Calls fail with grpc-js ServiceErrors. */
export interface Connection {
  readonly coordinator: string;
  readonly jobs: Client<typeof Jobs>;
  readonly tensors: Client<typeof Tensors>;
  readonly redisUrl: string | undefined;
  close(): void;
}

export interface Connected {
  readonly connection: Connection;
  readonly output: Output;
  readonly signal: AbortSignal;
}

const cliSettings = z.object({
  ...commonSettings,
  SEGUE_COORDINATOR: settings.SEGUE_COORDINATOR.default("127.0.0.1:7070"),
  REDIS_URL: settings.REDIS_URL.optional(),
});

export function addJsonOption(command: Command): Command {
  return command.addOption(new Option("--json", "print JSON on stdout and nothing else"));
}

export function addConnectionOptions(command: Command): Command {
  command
    .option("--coordinator <host:port>", "the coordinator's address (default: SEGUE_COORDINATOR or 127.0.0.1:7070)")
    .option("--token-file <file>", "file with the bearer token (default: SEGUE_TOKEN_FILE)")
    .option("--tls-ca <file>", "PEM file of the CA that signed the coordinator's certificate (default: SEGUE_TLS_CA)");
  return addJsonOption(command);
}

/** @throws SegueError SETTINGS_INVALID, and those of securityFromSettings and connectClient */
export function connect(options: ConnectionOptions, env: CliRuntime["env"]): Connection {
  const read = readSettings(cliSettings, {
    ...env,
    SEGUE_COORDINATOR: options.coordinator ?? env["SEGUE_COORDINATOR"],
    SEGUE_TOKEN_FILE: options.tokenFile ?? env["SEGUE_TOKEN_FILE"],
    SEGUE_TLS_CA: options.tlsCa ?? env["SEGUE_TLS_CA"],
  });
  const security = securityFromSettings(read);
  const coordinator = read.SEGUE_COORDINATOR;
  const jobs = connectClient(Jobs, coordinator, security);
  const tensors = connectClient(Tensors, coordinator, security);
  const close = (): void => {
    jobs.close();
    tensors.close();
  };
  return { coordinator, jobs, tensors, redisUrl: read.REDIS_URL, close };
}

/** Runs a command's action with a connection that is closed afterwards, and gives its errors their codes. */
export async function withConnection(
  runtime: CliRuntime,
  options: ConnectionOptions,
  action: (connected: Connected) => Promise<void>,
): Promise<void> {
  const connection = connect(options, runtime.env);
  try {
    await action({ connection, output: new Output(runtime, options.json === true), signal: runtime.signal });
  } catch (error) {
    throw asFailure(error, connection.coordinator);
  } finally {
    connection.close();
  }
}

/** A connection to the Redis that evaluators write to; the caller disconnects it. */
export function connectReader(redisUrl: string): ReturnType<typeof connectRedis> {
  return connectRedis(redisUrl, { logger: createLogger("cli", "warn"), role: "reader" });
}
