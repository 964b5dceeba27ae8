import assert from "node:assert/strict";
import { figureCsv, figureTable, renderPng, renderSvg, tableCsv } from "../src/index.js";
import { FIGURES } from "./support/figures.js";

/** A reader of RFC 4180, written without looking at the writer. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)/g)) {
    rows.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain ?? "");
    if (end === "\n") rows.push([]);
  }
  return rows.slice(0, -1);
}

/** Names of tags that are open at the end, or close what is not open. */
function unbalancedTags(xml: string): string[] {
  const open: string[] = [];
  for (const [, slash, name = "", attributes = ""] of xml.matchAll(/<(\/?)([a-zA-Z][\w:-]*)((?:\s+[\w:-]+="[^"<]*")*\s*\/?)>/g)) {
    if (slash === "/") {
      if (open.pop() !== name) return [`</${name}>`];
    } else if (!attributes.endsWith("/")) open.push(name);
  }
  return open;
}

/** What is written in a picture. */
function texts(svg: string): string[] {
  return [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text = ""]) => text);
}

const LABELS: Readonly<Record<keyof typeof FIGURES, readonly string[]>> = {
  passkeyMap: ["context length (tokens)", "depth of the key", "16Ki", "75 %", "100"],
  recentAccuracy: ["in the last 1Ki", "accuracy", "context length (tokens)"],
  checkpointAccuracy: ["step 8000", "trained to 2Ki"],
  lossByPosition: ["loss (nats a token)", "position (tokens)", "normalised-1-4096-128", "trained to 2Ki", "64Ki"],
  trainingCurve: ["step", "step 3k", "training loss (nats a token)"],
  retention: ["layer 38 head 0", "position t (tokens)"],
  remembrance: ["total variation distance", "before"],
  stateMoments: ["mean", "variance", "layer 38 head 7", "trained to 2Ki"],
  channelHistogram: ["value of a channel", "channels", "at 8Ki", "at 20Ki"],
  headInputs: ["time step dt", "size of B", "size of x"],
  recallFit: ["T_recall (tokens)", "state size (floats)", "measured", "fit", "256Ki", "12M"],
  forgetFit: ["T_forget (tokens)", "64Ki"],
  stateSizes: ["370M", "RWKV-6", "model size (parameters)"],
  curves: ["learning rate", "chosen", "1e-4"],
};

describe("figures", () => {
  for (const figure of Object.values(FIGURES)) {
    describe(figure.kind, () => {
      it("is drawn as well-formed SVG with its title, axes and names, the same every time", async () => {
        const svg = await renderSvg(figure);
        assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
        assert.deepEqual(unbalancedTags(svg), []);
        const written = texts(svg);
        for (const label of [figure.title, ...LABELS[figure.kind]])
          assert.ok(written.includes(label), `${label} in ${written.join(" | ")}`);
        assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
        await renderSvg(FIGURES.curves);
        assert.equal(await renderSvg(structuredClone(figure)), svg);
      });

      it("has data that come back from CSV as they were", () => {
        const { columns, rows } = figureTable(figure);
        assert.ok(rows.length > 0);
        const [header, ...read] = parseCsv(figureCsv(figure));
        assert.deepEqual(header, columns);
        assert.deepEqual(
          read.map((row, index) => row.map((text, column) => (typeof rows[index]?.[column] === "number" ? Number(text) : text))),
          rows.map((row) => row.map((value) => value ?? "")),
        );
      });
    });
  }

  it("write names of any kind as text, in pictures and in CSV", async () => {
    const name = `a "b", <c> & {d}\nline`;
    const svg = await renderSvg({
      ...FIGURES.curves,
      title: "x",
      curves: [
        { name, points: [{ x: 1, y: 2 }] },
        { name: "other", points: [{ x: 2, y: 1 }] },
      ],
    });
    assert.deepEqual(unbalancedTags(svg), []);
    assert.doesNotMatch(svg, /<c>/);
    assert.deepEqual(parseCsv(tableCsv({ columns: [name], rows: [[name], [null]] })), [[name], [name], [""]]);
  });

  it("are drawn where nothing or one thing is known", async () => {
    const empty = await renderSvg({ ...FIGURES.lossByPosition, curves: [] });
    const single = await renderSvg({ ...FIGURES.lossByPosition, curves: [{ name: "one", bucketTokens: 64, losses: [1.5] }] });
    const unknown = await renderSvg({
      ...FIGURES.lossByPosition,
      curves: [{ name: "none", bucketTokens: 64, losses: [null, null] }],
    });
    const flat = await renderSvg({
      ...FIGURES.trainingCurve,
      curves: [
        {
          name: "flat",
          points: [
            { step: 5, loss: 0 },
            { step: 6, loss: 0 },
          ],
        },
      ],
    });
    const map = await renderSvg({ ...FIGURES.passkeyMap, cells: [] });
    for (const svg of [empty, single, unknown, flat, map]) assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  });

  it("draw a bin of a histogram between its own borders", async () => {
    const places = [{ tokens: 1024, low: 0, high: 2, counts: [10, 100] }];
    const svg = await renderSvg({ ...FIGURES.channelHistogram, places });
    const path = /<path d="M([^"]*)"[^>]*stroke="#0072b2"/.exec(svg)?.[1] ?? "";
    const corners = path.split("L").map((corner) => corner.trim().split(" ").map(Number));
    const [floor, first, second] = [corners[0], corners[1], corners[3]];
    const middle = ((corners.at(-1)?.[0] ?? NaN) + (corners[0]?.[0] ?? NaN)) / 2;
    assert.equal(first?.[0], floor?.[0], path);
    assert.ok(Math.abs((second?.[0] ?? NaN) - middle) < 1, path);
    assert.ok(second![1]! < first![1]! && first![1]! < floor![1]!, path);
  });

  it("become PNGs of twice their size, with the text drawn whatever fonts there are", async () => {
    const svg = await renderSvg(FIGURES.passkeyMap);
    const [, width = "", height = ""] = /<svg width="(\d+)" height="(\d+)"/.exec(svg) ?? [];
    const png = await renderPng(svg);
    assert.deepEqual([...png.subarray(0, 8)], [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    const header = new DataView(png.buffer, png.byteOffset);
    assert.deepEqual([header.getUint32(16), header.getUint32(20)], [2 * Number(width), 2 * Number(height)]);
    const mute = await renderPng(svg.replaceAll(/<text[^>]*>[^<]*<\/text>/g, ""));
    assert.ok(png.length > 1.2 * mute.length, `${png.length} bytes with text, ${mute.length} without`);
  });
});
