import { readFileSync } from "node:fs";
import { SegueError } from "@segue/core";

/** PEM texts. A listener needs certificate and key; a client needs the CA, unless the system trusts the certificate. */
export interface TlsMaterial {
  readonly cert?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  readonly ca?: Buffer | undefined;
  /** Name that a server's certificate must carry, where peers are reached by addresses that no certificate can list (pods, containers). */
  readonly serverName?: string | undefined;
}

/** How a process proves itself and whom it trusts, as listener and as client. */
export interface Security {
  readonly tls?: TlsMaterial | undefined;
  readonly token?: string | undefined;
}

export interface SecuritySettings {
  readonly SEGUE_TLS_CERT?: string | undefined;
  readonly SEGUE_TLS_KEY?: string | undefined;
  readonly SEGUE_TLS_CA?: string | undefined;
  readonly SEGUE_TLS_SERVER_NAME?: string | undefined;
  readonly SEGUE_TOKEN_FILE?: string | undefined;
}

const MIN_TOKEN_LENGTH = 16;

/**
 * Reads the PEM and token files that the settings name.
 * @throws SegueError SECURITY_FILE_UNREADABLE, TLS_INCOMPLETE (certificate without key or the reverse), TOKEN_TOO_SHORT
 */
export function securityFromSettings(settings: SecuritySettings): Security {
  const { SEGUE_TLS_CERT, SEGUE_TLS_KEY, SEGUE_TLS_CA, SEGUE_TLS_SERVER_NAME, SEGUE_TOKEN_FILE } = settings;
  if ((SEGUE_TLS_CERT === undefined) !== (SEGUE_TLS_KEY === undefined)) {
    throw new SegueError("TLS_INCOMPLETE", "Set both SEGUE_TLS_CERT and SEGUE_TLS_KEY, or neither.");
  }
  const cert = readSecurityFile("SEGUE_TLS_CERT", SEGUE_TLS_CERT);
  const key = readSecurityFile("SEGUE_TLS_KEY", SEGUE_TLS_KEY);
  const ca = readSecurityFile("SEGUE_TLS_CA", SEGUE_TLS_CA);
  const token = readSecurityFile("SEGUE_TOKEN_FILE", SEGUE_TOKEN_FILE)?.toString("utf8").trim();
  if (token !== undefined && token.length < MIN_TOKEN_LENGTH) {
    throw new SegueError("TOKEN_TOO_SHORT", `The token in ${SEGUE_TOKEN_FILE} needs at least ${MIN_TOKEN_LENGTH} characters.`);
  }
  return {
    ...(cert || ca ? { tls: { cert, key, ca, serverName: SEGUE_TLS_SERVER_NAME } } : {}),
    ...(token === undefined ? {} : { token }),
  };
}

/** Whether a host name or address reaches only this machine. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Host of `host:port`, without an IPv6 address's brackets. */
export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":")).replace(/^\[(.*)\]$/, "$1");
}

/**
 * Lets a listener pass that only this machine reaches, or that has certificate, key and token.
 * @throws SegueError INSECURE_LISTENER saying what to set
 */
export function requireSafeListener(listen: string, security: Security): void {
  if (isLoopback(hostOf(listen)) || (security.tls?.cert && security.tls.key && security.token !== undefined)) return;
  throw new SegueError(
    "INSECURE_LISTENER",
    `${listen} can be reached from other machines. Set SEGUE_TLS_CERT, SEGUE_TLS_KEY and SEGUE_TOKEN_FILE ` +
      "(`segue certs` makes all three), or listen on 127.0.0.1.",
    { status: "FAILED_PRECONDITION" },
  );
}

function readSecurityFile(setting: string, path: string | undefined): Buffer | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new SegueError("SECURITY_FILE_UNREADABLE", `${setting}: cannot read ${path}.`, { cause: error });
  }
}
