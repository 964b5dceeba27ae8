import { spawnSync } from "node:child_process";

/** Hosts with network stacks of their own (Linux network namespaces) on one bridge. Needs root and iproute2. */
export class Namespaces {
  readonly #prefix = `segue${process.pid}`;
  readonly #hosts: readonly string[];

  /** @throws Error when the kernel or the user may not */
  constructor(hosts: readonly string[]) {
    this.#hosts = hosts;
    try {
      ip("netns", "add", this.#name("switch"));
      ip("-n", this.#name("switch"), "link", "add", "br0", "type", "bridge");
      ip("-n", this.#name("switch"), "link", "set", "br0", "up");
      for (const host of hosts) this.#addHost(host);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  static get available(): boolean {
    const probe = `segue${process.pid}probe`;
    const added = process.getuid?.() === 0 && spawnSync("ip", ["netns", "add", probe]).status === 0;
    if (added) spawnSync("ip", ["netns", "del", probe]);
    return added;
  }

  address(host: string): string {
    return `10.88.0.${this.#hosts.indexOf(host) + 1}`;
  }

  /** A command line that runs on the host. */
  on(host: string, ...command: string[]): string[] {
    return ["ip", "netns", "exec", this.#name(host), ...command];
  }

  /** Packets between the two hosts are lost without a word; both still reach everybody else. */
  cut(one: string, other: string): void {
    // Each believes the other has a network card that does not exist.
    this.#neighbour(one, other, "replace", "lladdr", "02:00:00:00:00:99");
    this.#neighbour(other, one, "replace", "lladdr", "02:00:00:00:00:99");
  }

  heal(one: string, other: string): void {
    this.#neighbour(one, other, "del");
    this.#neighbour(other, one, "del");
  }

  /** Idempotent. */
  close(): void {
    for (const host of [...this.#hosts, "switch"]) spawnSync("ip", ["netns", "del", this.#name(host)]);
  }

  #addHost(host: string): void {
    const [name, bridge] = [this.#name(host), this.#name("switch")];
    const port = `v${this.#hosts.indexOf(host)}`;
    ip("netns", "add", name);
    ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name);
    ip("-n", bridge, "link", "set", port, "master", "br0", "up");
    ip("-n", name, "addr", "add", `${this.address(host)}/24`, "dev", "eth0");
    ip("-n", name, "link", "set", "eth0", "up");
    ip("-n", name, "link", "set", "lo", "up");
  }

  #neighbour(of: string, other: string, verb: string, ...how: string[]): void {
    ip("-n", this.#name(of), "neigh", verb, this.address(other), ...how, "dev", "eth0");
  }

  #name(host: string): string {
    return `${this.#prefix}-${host}`;
  }
}

function ip(...args: string[]): void {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}
