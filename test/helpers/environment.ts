/** What every process that a test starts gets of the environment. */

/** Compiled code is shared: hundreds of processes load the same modules in one run. */
export const inherited: Readonly<Record<string, string>> = Object.fromEntries(
  ['PATH', 'HOME', 'NODE_COMPILE_CACHE'].flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
);
