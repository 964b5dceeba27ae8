import { h, patchChildren } from "./dom.js";
import { clock } from "./format.js";
import { JobPage } from "./job-page.js";
import { Live, sendToLoginIfNeeded } from "./live.js";
import { OverviewPage } from "./overview-page.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const pill = document.getElementById("live");
const live = new Live((topic, payload) => {
  if (topic === "redis" && payload.up) redisSeenAtMs = Date.now();
  page?.onLive?.(topic, payload);
  requestRender();
});
let page;
let redisSeenAtMs = 0;
let renderRequested = false;

function requestRender() {
  if (renderRequested) return;
  renderRequested = true;
  requestAnimationFrame(() => {
    renderRequested = false;
    render();
  });
}

function render() {
  const { redis } = live.state;
  const state = !live.connected
    ? live.heardAtMs
      ? "lost"
      : "connecting"
    : redis === undefined
      ? "connecting"
      : redis.up
        ? "live"
        : "stale";
  pill.dataset.state = state;
  const words = { live: "Live", stale: "Redis away", lost: "Reconnecting", connecting: "Connecting" }[state];
  if (pill.textContent !== words) pill.textContent = words;
  patchChildren(banner, bannerFor(state));
  page?.render();
}

function bannerFor(state) {
  if (state === "lost") {
    return h(
      "p.banner",
      {},
      h("strong", {}, "The dashboard's server does not answer. "),
      `Last heard at ${clock(live.heardAtMs)}; trying again.`,
    );
  }
  if (state !== "stale") return [];
  const seen = redisSeenAtMs ? `What you see is from ${clock(redisSeenAtMs)}. ` : "";
  const reason = live.state.redis.reason ?? "Redis does not answer.";
  return h(
    "p.banner",
    {},
    h("strong", {}, `${reason} `),
    `${seen}Training goes on without it, and this page as soon as it is back.`,
  );
}

function route() {
  const match = /^#\/jobs\/([^/]+)$/.exec(location.hash);
  page?.close?.();
  main.replaceChildren();
  const jobId = match ? decodeURIComponent(match[1]) : undefined;
  page = jobId === undefined ? new OverviewPage(main, live.state) : new JobPage(main, live.state, jobId);
  live.watch(jobId);
  render();
  window.scrollTo(0, 0);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  void navigator.clipboard?.writeText(button.dataset.copy).then(() => {
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 1500);
  });
});
window.addEventListener("hashchange", route);
// Ages such as "3 s ago" move on without news.
setInterval(requestRender, 1000);
void sendToLoginIfNeeded().then((session) => {
  document.getElementById("logout").hidden = !session?.login;
});
route();
