/**
 * Drives the page in a real Chromium: `node browser.mjs BASE_URL OUTPUT_FOLDER`.
 * Prints one JSON object on stdout; exit code 0 when every check holds, 1 otherwise.
 * `TAPEWICK_TEST_CHROMIUM` names the browser; playwright-core comes from `web/node_modules`.
 */

import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const [baseUrl, folder] = process.argv.slice(2);
if (!baseUrl || !folder) {
  console.error("usage: node browser.mjs BASE_URL OUTPUT_FOLDER");
  process.exit(2);
}
const WAIT_MS = Number(process.env.TAPEWICK_TEST_WAIT_MS ?? 60_000);
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const result = { ok: false, checks: {}, errors: [], foreign: [], screenshots: [], states: {} };

await mkdir(folder, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.TAPEWICK_TEST_CHROMIUM ?? "/usr/bin/chromium",
  args: ARGS,
});
try {
  await desktop();
  await narrow();
  result.checks.no_error = result.errors.length === 0;
  result.checks.no_foreign_request = result.foreign.length === 0;
} catch (error) {
  result.errors.push(`script: ${error.message}`);
} finally {
  await browser.close();
}
const checks = Object.values(result.checks);
result.ok = result.errors.length === 0 && checks.length > 0 && checks.every(Boolean);
console.log(JSON.stringify(result));
process.exit(result.ok ? 0 : 1);

async function desktop() {
  const page = await open({ width: 1440, height: 900 }, "dark", "");
  await ready(page, 2);
  await growing(page);
  result.states.first = await state(page);
  result.checks.data_attributes = Number(result.states.first.lastOpenTime) > 0 && result.states.first.instrument !== "";
  result.checks.live = result.states.first.connection === "live";
  result.checks.canvases = (await page.locator(".canvas canvas").count()) >= 7;
  result.checks.legend = /O.*H.*L.*C.*V/s.test((await page.locator(".legend").textContent()) ?? "");
  result.checks.attribution = (await page.locator('a[href*="tradingview.com"]').count()) >= 2;
  result.checks.simulated_badge =
    !result.states.first.instrument.startsWith("sim:") || (await page.locator(".simulated").isVisible());
  await shot(page, "desktop-dark");
  await timeframes(page);
  await page.getByRole("button", { name: /switch to light theme/i }).click();
  await page.waitForFunction(() => document.documentElement.dataset.theme === "light", null, { timeout: WAIT_MS });
  result.checks.theme = true;
  await shot(page, "desktop-light");
  await page.close();
}

async function timeframes(page) {
  const before = await page.evaluate(() => location.hash);
  await page.getByRole("button", { name: "5m", exact: true }).click();
  await ready(page, 1, "5m");
  result.states.switched = await state(page);
  result.checks.switch = Number(result.states.switched.lastOpenTime) % 300_000 === 0;
  await page.keyboard.type("15");
  await page.keyboard.press("Enter");
  await ready(page, 1, "15m");
  result.checks.typed = (await page.evaluate(() => location.hash)).includes("/15m");
  await page.goBack();
  await ready(page, 1, "5m");
  await page.goBack();
  await ready(page, 1, result.states.first.tf);
  result.checks.back = before === "" || (await page.evaluate(() => location.hash)) === before;
}

async function narrow() {
  const page = await open({ width: 360, height: 740 }, "dark", "");
  await ready(page, 2);
  result.checks.no_horizontal_scroll = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  const chart = await page.locator(".canvas").boundingBox();
  const tape = await page.locator(".tape").boundingBox();
  result.checks.chart_first = chart !== null && tape !== null && chart.y < tape.y && chart.height >= 300;
  await shot(page, "mobile-360");
  await page.close();
}

async function open(viewport, colorScheme, hash) {
  const context = await browser.newContext({ viewport, colorScheme });
  const page = await context.newPage();
  page.on("pageerror", (error) => result.errors.push(`page: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") result.errors.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => noteForeign(request.url()));
  page.on("websocket", (socket) => noteForeign(socket.url()));
  await page.goto(new URL(hash, baseUrl).href);
  return page;
}

function noteForeign(address) {
  const { hostname, protocol } = new URL(address);
  if (protocol === "data:" || protocol === "blob:") return;
  if (hostname !== "127.0.0.1" && hostname !== "localhost") result.foreign.push(address);
}

/** Waits until at least `bars` candles of the timeframe are held. */
async function ready(page, bars, tf) {
  await page.waitForFunction(
    ([least, frame]) => {
      const { dataset } = document.getElementById("root");
      return Number(dataset.bars) >= least && (frame === undefined || dataset.tf === frame);
    },
    [bars, tf],
    { timeout: WAIT_MS },
  );
}

/** Waits until live updates go on arriving. */
async function growing(page) {
  const { updates } = await state(page);
  await page.waitForFunction(
    (before) => Number(document.getElementById("root").dataset.updates) >= before + 3,
    Number(updates),
    { timeout: WAIT_MS },
  );
  result.checks.updates = true;
}

async function state(page) {
  return await page.evaluate(() => ({ ...document.getElementById("root").dataset }));
}

async function shot(page, name) {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  result.screenshots.push(path);
}
