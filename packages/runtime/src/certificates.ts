import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { SegueError } from "@segue/core";

/** Where the parts of a cluster's identity lie. */
export interface Certificates {
  readonly ca: string;
  readonly caKey: string;
  readonly cert: string;
  readonly key: string;
  readonly token: string;
}

const FILES = { ca: "ca.pem", caKey: "ca-key.pem", cert: "server.pem", key: "server-key.pem", token: "token" } as const;
const PARTS = ["ca", "caKey", "cert", "key", "token"] as const;
const CA_DAYS = 3650;
const SERVER_DAYS = 825;
const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

const run = promisify(execFile);

/**
 * Makes a private CA, a server certificate for the hosts (names, wildcard names or addresses; this machine's loopback names are always
 * included) and a random token, in a directory that has none of them yet. Keys and token are readable by the owner only.
 * @throws SegueError HOST_INVALID, CERTIFICATES_EXIST, OPENSSL_MISSING, OPENSSL_FAILED
 */
export async function createCertificates(dir: string, hosts: readonly string[]): Promise<Certificates> {
  const names = subjectAltNames(hosts);
  await mkdir(dir, { recursive: true });
  const paths: Certificates = mapFiles((file) => join(dir, file));
  for (const part of PARTS) await requireAbsent(paths[part]);
  const scratch = await mkdtemp(join(dir, ".certs-"));
  try {
    const made: Certificates = mapFiles((file) => join(scratch, file));
    await makeCertificates(scratch, made, names);
    await writeFile(made.token, `${randomBytes(32).toString("hex")}\n`);
    for (const path of [made.caKey, made.key, made.token]) await chmod(path, 0o600);
    // Only complete sets appear: nothing above touched the directory itself.
    for (const part of PARTS) await rename(made[part], paths[part]);
    return paths;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function makeCertificates(scratch: string, made: Certificates, names: string): Promise<void> {
  const request = join(scratch, "server.csr");
  const extensions = join(scratch, "server.cnf");
  await writeFile(
    extensions,
    `subjectAltName=${names}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n`,
  );
  const caExtensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
  await openssl(
    "req",
    "-x509",
    ...NEW_KEY,
    "-days",
    `${CA_DAYS}`,
    "-subj",
    "/CN=Segue CA",
    ...caExtensions,
    "-keyout",
    made.caKey,
    "-out",
    made.ca,
  );
  await openssl("req", ...NEW_KEY, "-subj", "/CN=Segue", "-keyout", made.key, "-out", request);
  const signing = ["-CA", made.ca, "-CAkey", made.caKey, "-CAcreateserial", "-days", `${SERVER_DAYS}`, "-extfile", extensions];
  await openssl("x509", "-req", "-in", request, ...signing, "-out", made.cert);
}

function subjectAltNames(hosts: readonly string[]): string {
  const all = new Set(["localhost", "127.0.0.1", "::1", ...hosts]);
  return [...all]
    .map((host) => {
      if (isIP(host)) return `IP:${host}`;
      if (/^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$/.test(host)) return `DNS:${host}`;
      throw new SegueError("HOST_INVALID", `"${host}" is neither a host name nor an IP address.`);
    })
    .join(",");
}

async function openssl(...args: string[]): Promise<void> {
  try {
    await run("openssl", args);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      throw new SegueError("OPENSSL_MISSING", "The program openssl is not installed. Install the package openssl.", {
        status: "FAILED_PRECONDITION",
        cause: error,
      });
    }
    const words = ((error as { stderr?: string }).stderr ?? "").trim().split("\n").at(-1);
    throw new SegueError("OPENSSL_FAILED", `openssl ${args[0]} failed: ${words}`, { status: "INTERNAL", cause: error });
  }
}

async function requireAbsent(path: string): Promise<void> {
  const exists = await stat(path).then(
    () => true,
    () => false,
  );
  if (exists) {
    throw new SegueError("CERTIFICATES_EXIST", `${path} exists already; choose another directory or remove it.`, {
      status: "ALREADY_EXISTS",
    });
  }
}

function mapFiles(path: (file: string) => string): Certificates {
  return { ca: path(FILES.ca), caKey: path(FILES.caKey), cert: path(FILES.cert), key: path(FILES.key), token: path(FILES.token) };
}
