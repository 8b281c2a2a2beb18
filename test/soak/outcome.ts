/** What a scenario found. */
export type Outcome = {
  seed: number;
  figures: Record<string, string | number>;
  /** What should not have been; empty where all is well. */
  failures: string[];
};

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const between = (random: () => number, from: number, to: number): number => from + random() * (to - from);
export const pick = <T>(random: () => number, items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;

/** For figures: seconds, to hundredths. */
export const seconds = (milliseconds: number): number => Math.round(milliseconds / 10) / 100;
export const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), -Infinity);

export const newSeed = (): number => Math.floor(Math.random() * 2 ** 31);
