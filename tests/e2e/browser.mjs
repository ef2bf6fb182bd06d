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
  await page.locator(".book[data-state=live] .book-bids li:not(.empty)").nth(5).waitFor();
  run.check("spread", /^spread [\d.,]+ · /.test((await page.locator(".book-spread").textContent()) ?? ""));
  const offered = await page.locator(".book-step option").allTextContents();
  run.check("book_steps", offered.length > 2);
  await page.getByLabel("Group prices by").selectOption(offered[1]);
  const digits = (text) => text.split(".")[1]?.length ?? 0;
  const price = (await page.locator(".book-bids li:not(.empty) .book-price").first().textContent()) ?? "";
  run.check("book_grouped", digits(price) === digits(offered[1]) && digits(price) < digits(offered[0]));
  await page.getByLabel("Group prices by").selectOption("");
  run.check("at_the_live_edge", (await page.locator(".go-live").count()) === 0);
  run.check("less_than_a_day", /since/.test((await page.locator(".figures").textContent()) ?? ""));
  await run.shot(page, "desktop-dark");
  await health(run, page);
  await timeframes(run, page, first.tf);
  await page.getByRole("button", { name: /switch to light theme/i }).click();
  await page.waitForFunction(() => document.documentElement.dataset.theme === "light");
  run.check("theme", true);
  await run.shot(page, "desktop-light");
  await page.close();
}

async function health(run, page) {
  await page.locator(".connection").click();
  const dialog = page.locator("dialog.health");
  await dialog.getByText(/tapewick .*(native|reference) engine/).waitFor();
  await dialog.locator(".health-rows .mark.good", { hasText: "connected" }).first().waitFor();
  await dialog.getByText("complete", { exact: false }).first().waitFor();
  await run.shot(page, "health-dark");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  run.check("health", true);
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
  await page.locator(".book[data-state=live] .book-bids li:not(.empty)").nth(5).waitFor(); // it has its height now
  const chart = await page.locator(".canvas").boundingBox();
  const tape = await page.locator(".tape").boundingBox();
  const book = await page.locator(".book").boundingBox();
  run.check("chart_first", chart !== null && tape !== null && chart.y < tape.y && chart.height >= 300);
  run.check("book_between", book !== null && chart.y + chart.height <= book.y && book.y + book.height <= tape.y);
  await run.shot(page, "mobile-360");
  await page.locator(".book-bids").scrollIntoViewIfNeeded();
  await run.shot(page, "mobile-360-book");
  await page.locator(".connection").tap();
  await page.locator("dialog.health .health-rows .mark.good").first().waitFor();
  await page.locator("dialog.health", { hasText: "engine" }).waitFor();
  run.check("narrow_dialog", await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await run.shot(page, "mobile-360-health");
  await page.close();
}
