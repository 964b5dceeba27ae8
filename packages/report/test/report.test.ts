import assert from "node:assert/strict";
import { figureId, figuresOf, renderHtml, reportFiles, withDistinctIds, type Report, type ReportFile } from "../src/index.js";
import { FIGURES } from "./support/figures.js";

const EVIL = `<img src=x onerror="alert('1')">&amp;`;

const REPORT: Report = {
  title: `Report ${EVIL}`,
  facts: [{ name: EVIL, value: EVIL }],
  sections: [
    {
      title: EVIL,
      blocks: [
        { kind: "text", text: EVIL },
        { kind: "warning", text: EVIL },
        { kind: "table", caption: EVIL, table: { columns: [EVIL, "n"], rows: [[EVIL, 1.23456789]] } },
        {
          kind: "figure",
          figure: {
            ...FIGURES.curves,
            title: EVIL,
            caption: EVIL,
            curves: [
              { name: EVIL, points: [{ x: 1, y: 1 }] },
              { name: "b", points: [] },
            ],
          },
        },
      ],
    },
    {
      title: "Figures",
      blocks: [
        { kind: "figure", figure: FIGURES.lossByPosition },
        { kind: "figure", figure: FIGURES.passkeyMap },
      ],
    },
  ],
};

async function filesOf(report: Report): Promise<ReportFile[]> {
  const files: ReportFile[] = [];
  for await (const file of reportFiles(report)) files.push(file);
  return files;
}

/** Every place where the text has it; short, where a page in an error message is not. */
function found(html: string, pattern: RegExp): string[] {
  return [...html.matchAll(pattern)].map(([match]) => match);
}

describe("report", () => {
  let html: string;
  before(async () => {
    html = await renderHtml(REPORT);
  });

  it("is one page that asks for nothing and runs nothing", () => {
    assert.deepEqual(found(html, /<(script|link|iframe|object|img|use|image|style [^>]*src)\b/gi), []);
    assert.deepEqual(found(html, /url\((?!#)|@import|href="(?!#)|\bsrc="/gi), []);
    const addresses = new Set(found(html, /https?:[^"\s<]+/g));
    assert.deepEqual([...addresses].sort(), ["http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"]);
    assert.equal(found(html, /Content-Security-Policy" content="default-src 'none'/g).length, 1);
    assert.equal(found(html, /<style/g).length, 1);
  });

  it("shows whatever the data say as text", () => {
    const escaped = "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;amp;";
    for (const markup of [
      `<title>Report ${escaped}</title>`,
      `<h1>Report ${escaped}</h1>`,
      `<dt>${escaped}</dt><dd>${escaped}</dd>`,
      `<p>${escaped}</p>`,
      `<td>${escaped}</td><td class="number">1.2346</td>`,
      `<figcaption>${escaped}</figcaption>`,
    ])
      assert.ok(html.includes(markup), markup);
  });

  it("names every picture, keeps its data beside it and has no id twice", () => {
    assert.equal(found(html, /<svg role="img" aria-label="/g).length, 3);
    assert.equal(found(html, /<details><summary>Data: /g).length, 3);
    const ids = found(html, / id="[^"]+"/g);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(found(html, /The first \d+ of \d+ rows(?=<)/g), ["The first 200 of 5120 rows"]);
  });

  it("follows the reader's choice of light or dark: no ink of a picture is fixed", () => {
    assert.equal(found(html, /@media screen and \(prefers-color-scheme: dark\)/g).length, 1);
    assert.ok(found(html, /<text[^>]*fill="var\(--chart-text\)"/g).length > 3);
    assert.equal(found(html, /<rect[^>]*fill="var\(--chart-paper\)"/g).length, 3);
    assert.deepEqual(found(html, /(fill|stroke)="#(1c2128|57606b|8a929c|e4e7eb|0072b2|fffffe)"/g), []);
  });

  it("is written as a page, its document, and four files for each figure, the same every time", async () => {
    const files = await filesOf(REPORT);
    const paths = files.map(({ path }) => path);
    assert.deepEqual(
      paths.slice(0, 4),
      ["svg", "png", "csv", "json"].map((end) => `figures/sweep.${end}`),
    );
    assert.deepEqual(paths.slice(-2), ["report.json", "report.html"]);
    assert.equal(paths.length, 3 * 4 + 2);
    const again = await filesOf(structuredClone(REPORT));
    const changed = files.filter(({ content }, index) => !Buffer.from(content).equals(Buffer.from(again[index]?.content ?? "")));
    assert.deepEqual(
      changed.map(({ path }) => path),
      [],
    );
    const json = files.find(({ path }) => path === "figures/loss.json")!.content as string;
    assert.deepEqual(JSON.parse(json), FIGURES.lossByPosition);
  });

  it("is refused when two figures would be one file, or one lies elsewhere", async () => {
    for (const ids of [["a", "a"], ["../a"], [""]]) {
      const blocks = ids.map((id) => ({ kind: "figure" as const, figure: { ...FIGURES.curves, id } }));
      await assert.rejects(filesOf({ ...REPORT, sections: [{ title: "", blocks }] }), { code: "REPORT_INVALID" });
    }
    assert.equal(figureId("Passkey", "größe 1,024", "+reduced-0.9999"), "passkey-gr-e-1-024-reduced-0-9999");
    assert.match(figureId("0.5"), /^[a-z]/);
    const same = ["a_b", "a-b", "a.b"].map((name) => ({
      kind: "figure" as const,
      figure: { ...FIGURES.curves, id: figureId(name) },
    }));
    const distinct = withDistinctIds({ ...REPORT, sections: [{ title: "", blocks: same }] });
    assert.deepEqual(
      figuresOf(distinct).map(({ id }) => id),
      ["a-b", "a-b-2", "a-b-3"],
    );
  });
});
