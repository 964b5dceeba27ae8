import { once } from "node:events";
import * as grpc from "@grpc/grpc-js";
import { addService, createClient, type ChannelSettings, type Client, type DescService, type Handlers } from "../src/index.js";

export interface LocalServer<S extends DescService> {
  readonly client: Client<S>;
  readonly port: number;
  close(): void;
}

/** A server of one service on a free loopback port and a client connected to it. */
export async function startLocalServer<S extends DescService>(
  service: S,
  handlers: Handlers<S>,
  settings?: ChannelSettings,
): Promise<LocalServer<S>> {
  const server = new grpc.Server();
  addService(server, service, handlers);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  const client = createClient(service, `127.0.0.1:${port}`, grpc.credentials.createInsecure(), settings);
  return {
    client,
    port,
    close() {
      client.close();
      server.forceShutdown();
    },
  };
}

/** Handlers of which a test needs only some; the others fail. */
export function someHandlers<S extends DescService>(service: S, some: Partial<Handlers<S>>): Handlers<S> {
  const missing = service.methods.map((method) => [
    method.localName,
    () => {
      throw new Error(`${method.localName} is not part of this test`);
    },
  ]);
  return { ...(Object.fromEntries(missing) as Handlers<S>), ...some };
}

/** Resolves when a call is over, also when it was before somebody asked. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}
