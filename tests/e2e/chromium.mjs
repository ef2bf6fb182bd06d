/** What the browser scripts share: a Chromium that may talk to this machine only, and the state the page shows on its root. */

import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

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

/** Runs `script(run)` in a fresh browser, prints its result as one JSON object and exits 0 or 1. */
export async function drive(folder, script) {
  await mkdir(folder, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.TAPEWICK_TEST_CHROMIUM ?? "/usr/bin/chromium",
    args: ARGS,
  });
  const run = new Run(browser, folder);
  try {
    await script(run);
  } catch (error) {
    run.result.errors.push(`script: ${error.message}`);
  } finally {
    await browser.close();
  }
  const { result } = run;
  result.checks.no_error = result.errors.length === 0;
  result.checks.no_foreign_request = result.foreign.length === 0;
  result.ok = Object.values(result.checks).every(Boolean);
  console.log(JSON.stringify(result));
  process.exitCode = result.ok ? 0 : 1;
}

class Run {
  result = { ok: false, checks: {}, errors: [], foreign: [], screenshots: [], states: { sockets: [] } };

  constructor(browser, folder) {
    this.browser = browser;
    this.folder = folder;
  }

  check(name, holds) {
    this.result.checks[name] = Boolean(holds);
  }

  /** Opens a page. `expected` matches console errors that belong to the test (a server that is cut off on purpose). */
  async open(address, options, expected) {
    const page = await (await this.browser.newContext(options)).newPage();
    page.on("pageerror", (error) => this.result.errors.push(`page: ${error.message}`));
    page.on("console", (message) => {
      if (message.type() !== "error" || expected?.test(message.text())) return;
      this.result.errors.push(`console: ${message.text()}`);
    });
    page.on("request", (request) => this.#noteForeign(request.url()));
    page.on("websocket", (socket) => {
      this.result.states.sockets.push(socket.url());
      this.#noteForeign(socket.url());
    });
    await page.goto(address);
    return page;
  }

  async shot(page, name) {
    const path = join(this.folder, `${name}.png`);
    await page.screenshot({ path });
    this.result.screenshots.push(path);
  }

  #noteForeign(address) {
    const { hostname, protocol } = new URL(address);
    if (protocol === "data:" || protocol === "blob:") return;
    if (hostname !== "127.0.0.1" && hostname !== "localhost") this.result.foreign.push(address);
  }
}

/** The data attributes of the root element. */
export async function state(page) {
  return await page.evaluate(() => ({ ...document.getElementById("root").dataset }));
}

/** Waits until the root's data attributes satisfy `test`. Asked from outside: the page's own header forbids `eval`. */
export async function until(page, test) {
  const deadline = Date.now() + WAIT_MS;
  let seen = await state(page);
  while (!test(seen)) {
    if (Date.now() > deadline) throw new Error(`never saw ${test} in ${WAIT_MS} ms; last: ${JSON.stringify(seen)}`);
    await page.waitForTimeout(50);
    seen = await state(page);
  }
}

/** Waits until at least `candles` of the timeframe are held. */
export async function ready(page, candles, tf) {
  await until(page, (data) => Number(data.bars) >= candles && (tf === undefined || data.tf === tf));
}

/** Waits until `count` more live updates have arrived. */
export async function growing(page, count) {
  const { updates } = await state(page);
  await until(page, (data) => Number(data.updates) >= Number(updates) + count);
}
