import { defineConfig } from "vitest/config";

// Each run is judged by the number of its tests, so nothing may be left out by a default.
export default defineConfig({
  test: {
    include: ["conformance.test.mjs"],
    exclude: [],
    setupFiles: ["key.mjs"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
