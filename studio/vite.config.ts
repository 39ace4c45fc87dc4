import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [svelte()],
  base: './', // the page works behind any prefix: a tunnel, a proxy
  build: {
    outDir: '../src/etude/serve/page',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // the content security policy allows files of its own origin only
    reportCompressedSize: false,
    license: { fileName: 'THIRD_PARTY_LICENSES.md' },
  },
  server: {
    proxy: {
      '/api': { target: 'http://127.0.0.1:8123', changeOrigin: false },
      '^/\\?token=': { target: 'http://127.0.0.1:8123', changeOrigin: false }, // exchanged for a cookie
    },
  },
});
