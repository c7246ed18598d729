// The page: index.html and assets with hashed names, put into the Python package. `--outDir` builds elsewhere.
import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/klines/page",
    emptyOutDir: true,
    // Nothing inline: the page's Content-Security-Policy allows scripts and styles of its own origin only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
});
