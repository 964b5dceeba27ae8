import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { Transform } from "node:stream";
import { freePort } from "@segue/runtime";

/**
 * A TCP relay before a service that can lose the network: {@link cut} lets nothing through and says nothing to either side, as a
 * partition does; connections stand and time out by themselves.
 */
export class FaultyLink {
  /** host:port under which others reach the service. */
  readonly address: string;
  /** host:port at which the service itself must listen. */
  readonly target: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** What waits for the network to come back. */
  readonly #held: (() => void)[] = [];
  #cut = false;
  #delayMs = 0;

  /** Use {@link startFaultyLink}. */
  constructor(server: Server, address: string, target: string) {
    this.#server = server;
    this.address = address;
    this.target = target;
    server.on("connection", (socket) => this.#relay(socket));
  }

  /** From now on nothing passes, in either direction, on old and new connections. */
  cut(): void {
    this.#cut = true;
  }

  /** The network is back; what was sent meanwhile and still wanted arrives. */
  heal(): void {
    this.#cut = false;
    for (const pass of this.#held.splice(0)) pass();
  }

  /** Every piece of data waits this long from now on; 0 ends it. */
  delay(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, "close");
  }

  #relay(incoming: Socket): void {
    const [host = "", port = ""] = this.target.split(":");
    const outgoing = connect(Number(port), host);
    for (const [from, to] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay();
      from.on("error", () => from.destroy());
      from.on("close", () => {
        this.#sockets.delete(from);
        // The other side does not hear of an end through a cut network either.
        this.#pass(() => to.destroy());
      });
      from.pipe(this.#gate()).pipe(to);
    }
  }

  #gate(): Transform {
    return new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        const pass = (): void => this.#pass(() => done(null, chunk));
        if (this.#delayMs === 0) pass();
        else setTimeout(pass, this.#delayMs);
      },
      flush: (done) => this.#pass(done),
    });
  }

  #pass(action: () => void): void {
    if (this.#cut) this.#held.push(action);
    else action();
  }
}

/** Starts a relay on a free port of 127.0.0.1 and finds a second one for the service. */
export async function startFaultyLink(): Promise<FaultyLink> {
  const targetPort = await freePort();
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return new FaultyLink(server, `127.0.0.1:${port}`, `127.0.0.1:${targetPort}`);
}
