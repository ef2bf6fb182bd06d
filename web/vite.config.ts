import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The page is served with `default-src 'self'`: nothing may be inlined into the HTML or the CSS.
export default defineConfig({
  plugins: [react()],
  base: "./",
  build: {
    outDir: "../src/tapewick/gateways/webapp",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: true,
  },
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": { target: process.env.TAPEWICK_URL ?? "http://127.0.0.1:8080", ws: true } },
  },
  test: { environment: "node", css: true, include: ["src/test/**/*.test.{ts,tsx}"] },
});
