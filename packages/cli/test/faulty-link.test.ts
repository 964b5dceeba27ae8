import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { startFaultyLink, type FaultyLink } from "@segue/cli";

describe("FaultyLink", () => {
  let link: FaultyLink;
  let service: Server;
  let client: Socket;
  let accepted: Socket | undefined;

  beforeEach(async () => {
    link = await startFaultyLink();
    service = createServer((socket) => {
      accepted = socket;
      socket.pipe(socket);
    });
    service.listen(Number(link.target.split(":")[1]), "127.0.0.1");
    await once(service, "listening");
    client = connect(Number(link.address.split(":")[1]), "127.0.0.1");
    client.on("error", () => undefined);
  });

  afterEach(async () => {
    client.destroy();
    await link.close();
    await link.close();
    service.close();
  });

  const echo = async (text: string): Promise<string> => {
    client.write(text);
    const [reply] = (await once(client, "data")) as [Buffer];
    return reply.toString();
  };

  it("relays both ways", async () => {
    assert.equal(await echo("hello"), "hello");
  });

  it("lets nothing through while it is cut, and all of it afterwards", async () => {
    assert.equal(await echo("before"), "before");
    link.cut();
    let heard = "";
    client.on("data", (data: Buffer) => (heard += data.toString()));
    client.write("lost?");
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.equal(heard, "");
    link.heal();
    await once(client, "data");
    assert.equal(heard, "lost?");
  });

  it("does not tell one side of the other's end while it is cut", async () => {
    assert.equal(await echo("x"), "x");
    const ended = once(accepted!, "close");
    link.cut();
    client.destroy();
    const first = await Promise.race([
      ended.then(() => "ended"),
      new Promise((resolve) => setTimeout(() => resolve("stands"), 150)),
    ]);
    assert.equal(first, "stands");
    link.heal();
    await ended;
  });

  it("delays what passes", async () => {
    link.delay(80);
    const startedAtMs = performance.now();
    assert.equal(await echo("slow"), "slow");
    assert.ok(performance.now() - startedAtMs >= 150);
  });
});
