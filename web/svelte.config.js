// Read by the Vite plugin and by svelte-check: runes everywhere, styles in files (the policy forbids inline ones).
import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

export default {
  preprocess: vitePreprocess(),
  compilerOptions: { runes: true, css: "external" },
};
