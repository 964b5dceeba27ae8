import * as grpc from "@grpc/grpc-js";
import { SegueError } from "@segue/core";
import { createClient, type ChannelSettings, type Client, type DescService } from "@segue/protocol";
import { hostOf, isLoopback, type Security } from "./security.js";

/**
 * A client of a Segue service, with TLS if `security` has any and with the token if there is one.
 * @throws SegueError INSECURE_CONNECTION when the token would travel to another machine in the clear
 */
export function connectClient<S extends DescService>(
  service: S,
  address: string,
  security: Security = {},
  settings: Omit<ChannelSettings, "bearerToken"> = {},
): Client<S> {
  const { tls, token } = security;
  if (token !== undefined && !tls && !isLoopback(hostOf(address))) {
    throw new SegueError("INSECURE_CONNECTION", `Refusing to send the token to ${address} unencrypted; set SEGUE_TLS_CA.`, {
      status: "FAILED_PRECONDITION",
    });
  }
  const credentials = tls ? grpc.credentials.createSsl(tls.ca ?? null) : grpc.credentials.createInsecure();
  return createClient(service, address, credentials, { serverName: tls?.serverName, ...settings, bearerToken: token });
}
