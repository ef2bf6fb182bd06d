/**
 * The page of a server that speaks TLS: `node tls.mjs BASE_URL OUTPUT_FOLDER`, output as of browser.mjs.
 * The certificate is one that no authority vouches for; a person would have to accept it, the browser is told to.
 */

import { drive, growing, ready, until } from "./chromium.mjs";

const [baseUrl, folder] = process.argv.slice(2);
if (!baseUrl?.startsWith("https:") || !folder) {
  console.error("usage: node tls.mjs HTTPS_BASE_URL OUTPUT_FOLDER");
  process.exit(2);
}

await drive(folder, async (run) => {
  const viewport = { width: 1280, height: 800 };
  const page = await run.open(baseUrl, { viewport, colorScheme: "dark", ignoreHTTPSErrors: true });
  await ready(page, 2);
  await growing(page, 3);
  run.check("moves", true);
  await until(page, (data) => data.connection === "live");
  const { sockets } = run.result.states;
  run.check("encrypted", sockets.length > 0 && sockets.every((address) => address.startsWith("wss:")));
  run.check("secure_context", await page.evaluate(() => location.protocol === "https:" && isSecureContext));
  await run.shot(page, "tls");
});
