/**
 * Drives the page in a real Chromium: `node browser.mjs BASE_URL OUTPUT_FOLDER`.
 * Prints one JSON object on stdout; exit code 0 when every check holds, 1 otherwise.
 * `TAPEWICK_TEST_CHROMIUM` names the browser; playwright-core comes from `web/node_modules`.
 */

import { drive, growing, ready, state, until } from "./chromium.mjs";

const [baseUrl, folder] = process.argv.slice(2);
if (!baseUrl || !folder) {
  console.error("usage: node browser.mjs BASE_URL OUTPUT_FOLDER");
  process.exit(2);
}

await drive(folder, async (run) => {
  await desktop(run);
  await narrow(run);
});

async function desktop(run) {
  const page = await run.open(baseUrl, { viewport: { width: 1440, height: 900 }, colorScheme: "dark" });
  await ready(page, 2);
  await growing(page, 3);
  run.check("updates", true);
  const first = await state(page);
  run.result.states.first = first;
  run.check("data_attributes", Number(first.lastOpenTime) > 0 && first.instrument !== "" && first.lastRev !== "");
  await until(page, (data) => data.connection === "live"); // a busy machine may be stale for a moment
  run.check("live", true);
  run.check("canvases", (await page.locator(".canvas canvas").count()) >= 7);
  run.check("legend", /O.*H.*L.*C.*V/s.test((await page.locator(".legend").textContent()) ?? ""));
  run.check("attribution", (await page.locator('a[href*="tradingview.com"]').count()) >= 2);
  run.check("simulated_badge", !first.instrument.startsWith("sim:") || (await page.locator(".simulated").isVisible()));
  await run.shot(page, "desktop-dark");
  await timeframes(run, page, first.tf);
  await page.getByRole("button", { name: /switch to light theme/i }).click();
  await page.waitForFunction(() => document.documentElement.dataset.theme === "light");
  run.check("theme", true);
  await run.shot(page, "desktop-light");
  await page.close();
}

async function timeframes(run, page, tf) {
  await page.getByRole("button", { name: "5m", exact: true }).click();
  await ready(page, 1, "5m");
  run.result.states.switched = await state(page);
  run.check("switch", Number(run.result.states.switched.lastOpenTime) % 300_000 === 0);
  await page.keyboard.type("15");
  await page.keyboard.press("Enter");
  await ready(page, 1, "15m");
  run.check("typed", (await page.evaluate(() => location.hash)).includes("/15m"));
  await page.goBack();
  await ready(page, 1, "5m");
  await page.goBack();
  await ready(page, 1, tf);
  await until(page, (data) => data.connection === "live");
  run.check("back", true);
}

async function narrow(run) {
  const page = await run.open(baseUrl, { viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true });
  await ready(page, 2);
  await growing(page, 1);
  run.check("no_horizontal_scroll", await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  const chart = await page.locator(".canvas").boundingBox();
  const tape = await page.locator(".tape").boundingBox();
  run.check("chart_first", chart !== null && tape !== null && chart.y < tape.y && chart.height >= 300);
  await run.shot(page, "mobile-360");
  await page.close();
}
