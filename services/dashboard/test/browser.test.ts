import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectRedis, createLogger, redisKeys, startPrivateRedis, type PrivateRedis } from "@segue/runtime";
import type { Redis } from "ioredis";
import { chromium, type Browser, type Page } from "playwright-core";
import { startDashboard, type Dashboard } from "../src/index.js";
import { PATIENCE_MS } from "../../../test/helpers/patience.js";
import { openLine, type Line } from "./line.js";
import { JOB_ID, JOB_NAME, seedCluster, seedCures, seedGpu, seedSteps } from "./seed.js";

const logger = createLogger("test", "silent");
const TOKEN = "a-token-of-this-test-cluster";
const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));
const BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

describe("dashboard page", () => {
  let dir: string;
  let server: PrivateRedis;
  let seed: Redis;
  let line: Line;
  let redis: Redis;
  let dashboard: Dashboard;
  let browser: Browser;
  let page: Page;
  let complaints: string[];

  before(async function () {
    if (CHROMIUM === undefined) {
      console.log("      skipped: no Chromium found; install the package chromium to test the page in a browser");
      return this.skip();
    }
    dir = await mkdtemp(join(tmpdir(), "segue-page-"));
    server = await startPrivateRedis({ dir });
    seed = connectRedis(server.url, { logger, role: "worker" });
    line = await openLine(server.url);
    redis = connectRedis(line.url, { logger, role: "producer" });
    dashboard = await startDashboard({ listen: "127.0.0.1:0", redis, logger, intervalMs: 100 });
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, timeout: PATIENCE_MS });
  });

  beforeEach(async () => {
    await seed.flushall();
    complaints = [];
    page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(dashboard.url)) complaints.push(`request to ${request.url()}`);
    });
  });

  afterEach(async () => {
    await page.close();
  });

  after(async () => {
    await browser?.close();
    await dashboard?.close();
    redis?.disconnect();
    seed?.disconnect();
    await line?.cut();
    await server?.close();
    if (dir) await rm(dir, { recursive: true, force: true });
  });

  it("says what to do while there is nothing to show, and shows a job as soon as there is one", async () => {
    await page.goto(dashboard.url);
    await page.getByText("No jobs yet").waitFor();
    await page.getByText("npx segue submit recipes/").waitFor();
    await page.getByText("No workers attached").waitFor();
    await seedCluster(seed, { steps: 20 });
    await page.getByRole("link", { name: "books-130m" }).waitFor();
    await page.getByText("evaluator-1").waitFor();
    assert.deepEqual(complaints, []);
  });

  it("shows running and waiting jobs among hundreds of newer ones, says how many there are, and shows older ones when asked", async () => {
    const now = Date.now();
    const pipeline = seed.pipeline();
    for (let index = 0; index < 450; index++) {
      const id = `many-${String(index).padStart(3, "0")}`;
      const phase = ["RUNNING", "WAITING"][index] ?? "SUCCEEDED";
      pipeline.zadd(redisKeys.jobs, now - 1_000_000 + index, id);
      const numbers = {
        step: index,
        totalSteps: 450,
        loss: 1,
        workers: index === 0 ? 1 : 0,
        submittedAtMs: now - 1_000_000 + index,
      };
      pipeline.hset(redisKeys.job(id), { name: `run ${index}`, phase, tokensPerSecond: 100, ...numbers });
    }
    await pipeline.exec();
    await page.goto(dashboard.url);
    const rows = page.locator("table.jobs tbody tr");
    await rows.first().waitFor();
    assert.equal(await rows.count(), 202);
    assert.deepEqual((await rows.locator("a").allTextContents()).slice(0, 3), ["run 1", "run 0", "run 449"]);
    assert.match(
      await page.locator(".panel-extra").first().innerText(),
      /1 running, 100 tokens\/s . 1 waiting or paused . 450 in all/,
    );
    assert.match(await page.locator(".older").innerText(), /202 of 450 jobs are shown; 248 older finished ones are not/);
    if (process.env["TEST_SCREENSHOTS"]) {
      await page.screenshot({ path: join(process.env["TEST_SCREENSHOTS"], "jobs-top.png") });
      await page.locator(".older").scrollIntoViewIfNeeded();
      await page.screenshot({ path: join(process.env["TEST_SCREENSHOTS"], "jobs-older.png") });
    }
    await page.locator(".older button").focus();
    await page.keyboard.press("Enter");
    await rows.nth(401).waitFor();
    await page.locator(".older button").click();
    await rows.nth(449).waitFor();
    assert.equal(await rows.count(), 450);
    assert.equal(await page.locator(".older").count(), 0);
    // A newer one pushes none of them off the page.
    await seed.zadd(redisKeys.jobs, now, "newest");
    await seed.hset(redisKeys.job("newest"), { name: "newest", phase: "SUCCEEDED", submittedAtMs: now });
    await rows.nth(450).waitFor();
    assert.deepEqual(complaints, []);
  });

  it("shows names as text, whatever they contain", async () => {
    await seedCluster(seed, { steps: 20 });
    await page.goto(dashboard.url);
    await page.getByRole("link", { name: JOB_NAME }).first().click();
    await page.getByRole("heading", { level: 1, name: JOB_NAME }).waitFor();
    assert.equal(await page.locator("main img").count(), 0);
    assert.equal(await page.title(), `${JOB_NAME} - Segue`);
    assert.deepEqual(complaints, []);
  });

  it("shows how fast each member is, what its time goes into, and who is slow", async () => {
    await seedCluster(seed, { steps: 20 });
    await page.goto(`${dashboard.url}#/jobs/${JOB_ID}`);
    const members = page.getByRole("region", { name: "Members" });
    const bar = members.getByRole("img", { name: "32.1 ms computing, 0.9 ms waiting for gradients, 0.4 ms rest" });
    await bar.waitFor();
    const widths = await Promise.all(
      ["compute", "exchange"].map(async (part) => (await bar.locator(`[data-part=${part}]`).boundingBox())!.width),
    );
    assert.ok(widths[0]! > 20 * widths[1]!, widths.join(" and "));
    const rows = members.locator("tbody tr");
    assert.deepEqual(await rows.locator("th").allInnerTexts(), ["worker-alpha", "worker-beta slow"]);
    await seed.hset(redisKeys.job(JOB_ID), { members: "[]" });
    await members.waitFor({ state: "detached" });
    assert.deepEqual(complaints, []);
  });

  it("shows what the GPU of each worker is doing, where there are any", async () => {
    await seedCluster(seed, { steps: 20 });
    await page.goto(dashboard.url);
    const workers = page.getByRole("region", { name: "Workers" });
    await workers.getByRole("rowheader", { name: /^beta/ }).waitFor();
    assert.equal(await workers.locator(".gpu").count(), 0);
    await seedGpu(seed, "worker-alpha", { memoryUsedBytes: 83 * 2 ** 30, utilisationPercent: 97, temperatureCelsius: 63 });
    await seedGpu(seed, "worker-beta", {});
    await workers.getByText("97 % \u00b7 63 \u00b0C \u00b7 83 GiB of 140 GiB").waitFor();
    await workers.getByText("NVIDIA H200 \u00b7 140 GiB").waitFor();
    await page.goto(`${dashboard.url}#/jobs/${JOB_ID}`);
    const members = page.getByRole("region", { name: "Members" });
    await members.getByText("83 GiB of 140 GiB").waitFor();
    await members.getByRole("columnheader", { name: "GPU" }).waitFor();
    assert.deepEqual(complaints, []);
  });

  it("continues the curves live", async () => {
    await seedCluster(seed, { steps: 200 });
    await page.goto(`${dashboard.url}#/jobs/${JOB_ID}`);
    const plot = page.locator("[data-column=loss] .plot");
    await page.locator("[data-column=loss] .plot[aria-label$='at step 200']").waitFor();
    assert.ok((await plot.locator("canvas").boundingBox())!.width > 600);
    await seedSteps(seed, 2, 201, 204, 0.5);
    await page.locator("[data-column=loss] .plot[aria-label$='to 0.5 at step 204']").waitFor();
    assert.equal(await page.locator("[data-column=loss] .curve-value").textContent(), "0.5");
    await seed.hset(redisKeys.job(JOB_ID), { step: 400 });
    await page.locator(".job-head .progress[style*='0.5']").waitFor();
    assert.deepEqual(complaints, []);
  });

  it("shows the heat map cell by cell, for every checkpoint, with the keyboard alone", async () => {
    await seedCluster(seed, { steps: 20 });
    await page.goto(`${dashboard.url}#/jobs/${JOB_ID}`);
    const cell = page.getByRole("button", { name: "256 tokens, depth 0%: 88%, 44 of 50" });
    await cell.focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.getByText("512 tokens, depth 25%: 38 of 50 right").waitFor();
    await page.getByText("34841 <b>").waitFor();
    await page.getByRole("button", { name: "4,096 tokens, depth 100%: not evaluated yet" }).waitFor();
    await seed.hset(
      redisKeys.cells(`${JOB_ID}_200_passkey`),
      "4096:1",
      JSON.stringify({ correct: 7, samples: 50, ms: 9, answers: [] }),
    );
    await page.getByRole("button", { name: "4,096 tokens, depth 100%: 14%, 7 of 50" }).waitFor();
    const checkpoint = page.locator("select[name=checkpoint]");
    await checkpoint.selectOption(`${JOB_ID}_100_passkey`);
    await page.getByRole("button", { name: /4,096 tokens, depth 100%: 12%, 6 of 50/ }).waitFor();
    await page.getByRole("button", { name: "Newer checkpoint" }).click();
    assert.equal(await checkpoint.inputValue(), `${JOB_ID}_200_passkey`);
    await page.getByRole("button", { name: "4,096 tokens, depth 100%: 14%, 7 of 50" }).waitFor();
    assert.deepEqual(complaints, []);
  });

  it("draws the loss over position with every cure side by side, and tells heat maps with cures apart", async () => {
    await seedCluster(seed, { steps: 20 });
    await seedCures(seed);
    await page.goto(`${dashboard.url}#/jobs/${JOB_ID}`);
    const chart = page.getByRole("region", { name: "Loss by position" });
    await chart.getByText("collapses from 49,152 on").waitFor();
    const plot = chart.locator(".plot");
    assert.match(
      (await plot.getAttribute("aria-label"))!,
      /^Loss up to 1,048,576 tokens; none: collapses .*; reduced-0.9999-0.75: no/,
    );
    assert.deepEqual(await chart.locator(".legend-line b").allTextContents(), ["none", "reduced-0.9999-0.75", "window-8192-128"]);
    await chart.getByText("queued").waitFor();
    const over = plot.locator(".u-over");
    const { width } = (await over.boundingBox())!;
    await over.hover({ position: { x: width - 2, y: 20 } });
    await chart.getByText(/^9\.\d+ at 1,048,576$/).waitFor();

    await page.getByText("state carried", { exact: false }).first().waitFor();
    await page.locator("select[name=cure]").selectOption("reduced-0.9999-0.75");
    await page.getByText("state carried, cure reduced-0.9999-0.75").waitFor();
    assert.equal(await page.locator("select[name=checkpoint] option").count(), 1);
    assert.deepEqual(complaints, []);
  });

  it("says that Redis is away, keeps what it shows, and goes on by itself", async () => {
    await seedCluster(seed, { steps: 20 });
    await page.goto(dashboard.url);
    await page.getByRole("link", { name: "books-130m" }).waitFor();
    await line.cut();
    await page.getByRole("alert").getByText("Redis does not answer.").waitFor();
    assert.ok(await page.getByRole("link", { name: "books-130m" }).isVisible());
    await line.mend();
    await page.getByRole("alert").getByText("Redis does not answer.").waitFor({ state: "detached" });
    await seed.hset(redisKeys.job("job-old"), { name: "renamed" });
    await page.getByRole("link", { name: "renamed" }).waitFor();
  });

  it("fits narrow screens without sideways scrolling, in light and dark", async () => {
    await seedCluster(seed, { steps: 20 });
    await seedCures(seed);
    await page.setViewportSize({ width: 390, height: 844 });
    const colours = new Set<string>();
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      for (const hash of ["#/", `#/jobs/${JOB_ID}`]) {
        await page.goto(`${dashboard.url}${hash}`);
        await page.locator(".progress").first().waitFor();
        assert.ok((await page.evaluate<number>("document.documentElement.scrollWidth")) <= 390, hash);
      }
      colours.add(await page.evaluate<string>(BACKGROUND));
    }
    assert.equal(colours.size, 2);
    await page.getByRole("button", { name: "Theme: system" }).click();
    await page.reload();
    await page.getByRole("button", { name: "Theme: light" }).waitFor();
    assert.ok(colours.has(await page.evaluate<string>(BACKGROUND)));
    assert.deepEqual(complaints, []);
  });

  it("lets in who has the token, by form, and out again", async () => {
    const guarded = await startDashboard({ listen: "127.0.0.1:0", redis, logger, token: TOKEN, intervalMs: 100 });
    try {
      await page.goto(guarded.url);
      await page.getByLabel("Access token").fill("not the token at all");
      await page.keyboard.press("Enter");
      await page.getByText("That is not the token of this cluster.").waitFor();
      await page.getByLabel("Access token").fill(TOKEN);
      await page.keyboard.press("Enter");
      await page.getByText("No jobs yet").waitFor();
      await page.getByRole("button", { name: "Log out" }).click();
      await page.getByLabel("Access token").waitFor();
    } finally {
      await guarded.close();
    }
  });
});
