/** `node deploy/bundle.ts lambda|cloudflare`: an edge as one file below dist/, for runtimes that take no node_modules. */
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

export const bundles = {
  lambda: { entry: 'edge/lambda.ts', file: 'dist/lambda/index.mjs' },
  cloudflare: { entry: 'edge/cloudflare.ts', file: 'dist/cloudflare/index.js' },
} as const;

export type BundleName = keyof typeof bundles;

const fromRoot = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));

/** @returns its size in bytes */
export async function bundle(name: BundleName, file: string = fromRoot(bundles[name].file)): Promise<number> {
  const build = await rolldown({
    input: fromRoot(bundles[name].entry),
    platform: 'node',
    // BullMQ's CommonJS can't be shaken: its ESM is a third smaller
    resolve: { mainFields: ['module', 'main'] },
    // a module of a Worker has no URL, and the bundler's own `require` wants one
    // https://github.com/cloudflare/workerd/issues/6986
    plugins: name === 'cloudflare' ? [{ name: 'no-module-url', renderChunk: (code) => code.replaceAll('import.meta.url', '"file:///index.js"') }] : [],
  });
  try {
    // errors are told apart by their classes' names
    const { output } = await build.write({ file, format: 'esm', codeSplitting: false, minify: true, keepNames: true });
    return Buffer.byteLength(output[0].code);
  } finally {
    await build.close();
  }
}

if (import.meta.main) {
  const name = process.argv[2];
  if (name === undefined || !Object.hasOwn(bundles, name)) {
    console.error(`usage: node deploy/bundle.ts ${Object.keys(bundles).join('|')}`);
    process.exit(2);
  }
  const bytes = await bundle(name as BundleName);
  console.log(`${bundles[name as BundleName].file}: ${(bytes / 1000).toFixed(0)} kB`);
}
