import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";

/** Forwards connections to a port; the i-th is cut after budgets[i] bytes towards the client, later ones never. */
export async function breakingProxy(port: number, budgets: readonly number[]) {
  const sockets = new Set<Socket>();
  let connections = 0;
  let bytes = 0;
  const server = createServer((client) => {
    let budget = budgets[connections++] ?? Infinity;
    const upstream = createConnection(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream);
    upstream.on("data", (data) => {
      budget -= data.byteLength;
      bytes += data.byteLength;
      if (budget < 0) client.destroy();
      else if (!client.write(data)) {
        upstream.pause();
        client.once("drain", () => upstream.resume());
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    bytes: () => bytes,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
