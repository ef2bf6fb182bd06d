/**
 * What needs a server that can be slowed down and cut off: `node mocked.mjs OUTPUT_FOLDER`.
 * Runs the page of `npm run build` against `web/dev/mock.mjs`, with a security header that allows no inline style
 * but the chart library's own. Result and exit code as in browser.mjs.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { drive, growing, ready, state, until } from "./chromium.mjs";

const MOCK = fileURLToPath(new URL("../../web/dev/mock.mjs", import.meta.url));
const CUT_OFF = /WebSocket connection|ERR_CONNECTION|Failed to load resource/;

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node mocked.mjs OUTPUT_FOLDER");
  process.exit(2);
}
const mock = spawn(process.execPath, [MOCK, "0"], { stdio: ["ignore", "pipe", "inherit"] });
const [line] = await once(mock.stdout, "data");
const baseUrl = String(line).trim();
try {
  await drive(folder, async (run) => {
    const page = await run.open(`${baseUrl}#sim:BTCUSDT/1m`, { viewport: { width: 1280, height: 800 } }, CUT_OFF);
    await ready(page, 100);
    await history(run, page);
    await goLive(run, page);
    await search(run, page);
    await book(run, page);
    await health(run, page);
    await reconnect(run, page);
  });
} finally {
  mock.kill();
}

/** The view stays still while an older page arrives, and only one request is on its way. */
async function history(run, page) {
  let inFlight = 0;
  let most = 0;
  await page.route("**/v1/candles?*end=*", async (route) => {
    most = Math.max(most, ++inFlight);
    await new Promise((done) => setTimeout(done, 1_000));
    inFlight -= 1;
    await route.continue();
  });
  const box = await page.locator(".canvas").boundingBox();
  const { bars } = await state(page);
  for (let turn = 0; turn < 600 && inFlight === 0; turn += 1) {
    await page.keyboard.press("ArrowLeft");
    await page.waitForTimeout(20); // a busy machine draws later than keys arrive
  }
  await page.keyboard.press("ArrowLeft");
  await page.mouse.move(box.x + 500, box.y + 300);
  const before = await page.locator(".legend-time").textContent();
  await until(page, (data) => Number(data.bars) > Number(bars) + 100);
  await page.mouse.move(box.x + 500, box.y + 301);
  await page.waitForTimeout(200);
  run.result.states.history = { before, after: await page.locator(".legend-time").textContent(), most };
  run.check("view_stays_still", run.result.states.history.after === before);
  run.check("one_request_in_flight", most === 1);
  await run.shot(page, "history");
  await page.unroute("**/v1/candles?*end=*");
}

async function goLive(run, page) {
  await page.locator(".go-live").click();
  await page.locator(".go-live").waitFor({ state: "detached" });
  run.check("go_live", true);
}

async function search(run, page) {
  await page.keyboard.press("/");
  await page.locator(".search input:focus").waitFor(); // a busy machine opens it later than keys arrive
  await page.keyboard.type("ethusdt");
  await page.locator(".search [role=option][aria-selected=true]", { hasText: "ETHUSDT" }).waitFor();
  await page.keyboard.press("Enter");
  await until(page, (data) => data.instrument === "sim:ETHUSDT" && Number(data.bars) > 2);
  await page.goBack();
  await until(page, (data) => data.instrument === "sim:BTCUSDT" && Number(data.bars) > 2);
  run.check("search_and_back", true);
}

/** The states of a book are told, and levels of one that is being synchronised are not shown. */
async function book(run, page) {
  const panel = page.locator(".book");
  const levels = () => panel.locator("li:not(.empty)").count();
  await panel.locator(".book-state", { hasText: "live" }).waitFor();
  run.check("ladder", (await levels()) === 20);
  run.check("spread", /spread 0\.10 · [<\d.]+ bp/.test(await panel.locator(".book-spread").textContent()));
  await run.shot(page, "book");
  await fetch(new URL("/mock/book?state=stale", baseUrl));
  await panel.locator(".book-note", { hasText: "Not current" }).waitFor();
  run.check("stale_levels", (await levels()) === 20);
  await run.shot(page, "book-stale");
  await fetch(new URL("/mock/book?state=syncing", baseUrl));
  await panel.locator(".book-note", { hasText: "Synchronising" }).waitFor();
  run.check("no_levels_while_syncing", (await levels()) === 0);
  await run.shot(page, "book-syncing");
  await fetch(new URL("/mock/book?state=live", baseUrl));
  await panel.locator(".book-state", { hasText: "live" }).waitFor();
  await page.keyboard.press("b");
  await panel.waitFor({ state: "detached" });
  await page.keyboard.press("b");
  await panel.locator(".book-state", { hasText: "live" }).waitFor();
  run.check("book_key", true);
}

async function health(run, page) {
  await page.keyboard.press("h");
  const dialog = page.locator("dialog.health");
  for (const text of ["native engine", "1 open gap", "connected", "5000501 – 5000519", "3 attempts"]) {
    await dialog.getByText(text).first().waitFor();
  }
  await run.shot(page, "health");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  run.check("health", true);
}

async function reconnect(run, page) {
  await fetch(new URL("/mock/cut?ms=1500", baseUrl));
  await until(page, (data) => data.connection === "reconnecting");
  run.check("says_reconnecting", true);
  await run.shot(page, "reconnecting");
  await until(page, (data) => data.connection === "live");
  await growing(page, 3);
  run.check("recovers", true);
}
