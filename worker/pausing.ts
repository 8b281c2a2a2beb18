/** Whether a recording is wanted to pause: a switch that can be waited for. */

export type Pausing = {
  wanted(): boolean;
  /** Resolves with the next change. */
  changed(): Promise<void>;
};

export function createPausing(initially = false): Pausing & { set(paused: boolean): void } {
  let paused = initially;
  let waiting = Promise.withResolvers<void>();
  return {
    wanted: () => paused,
    changed: () => waiting.promise,
    set(value) {
      if (value === paused) return;
      paused = value;
      waiting.resolve();
      waiting = Promise.withResolvers();
    },
  };
}
