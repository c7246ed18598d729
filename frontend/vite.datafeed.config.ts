// The datafeed as one stand-alone ES module with a stable name, beside the page.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    outDir: "../src/klines/page",
    emptyOutDir: false,
    target: "es2022",
    lib: { entry: "src/datafeed.ts", formats: ["es"], fileName: () => "datafeed.js" },
  },
});
