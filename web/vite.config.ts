// The console is built into one directory, `dist`, that the server embeds and serves under /console/.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const server = process.env["PLINTH_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  base: "/console/",
  plugins: [svelte()],
  build: {
    outDir: "dist",
    assetsDir: "assets",
    // Everything is a file of its own, because the policy forbids inline scripts, styles and fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // `npm run dev` shows the console with the API of a running node.
  server: { proxy: { "/v1": { target: server, ws: true } } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
