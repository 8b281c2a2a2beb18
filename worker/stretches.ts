/** Stretches of the recording's timeline in which something is not as it should be: each is told once, when it is over. */

export type StretchesOptions = {
  /** Of the warning; the second at which the stretch begins is added. */
  code: string;
  /** Seconds: what is shorter isn't told. */
  least: number;
  /** How many are told; of further ones only that there are some. */
  atMost: number;
  /** @param from, to such as `12.0 s`. @param worst greatest value that was noted */
  text(from: string, to: string, worst: number): string;
  warn(code: string, message: string): void;
};

export type Stretches = {
  /** Seconds on the timeline, never less than before. @param value what `text` gets the greatest of; null where all is well */
  note(at: number, value: number | null): void;
  /** Nothing follows. */
  end(at: number): void;
};

export function createStretches({ code, least, atMost, text, warn }: StretchesOptions): Stretches {
  let from: number | null = null;
  let worst = 0;
  let told = 0;
  const close = (to: number) => {
    if (from === null) return;
    const begun = from;
    from = null;
    if (to - begun < least) return;
    told += 1;
    if (told <= atMost) warn(`${code}-${Math.floor(begun)}`, text(`${begun.toFixed(1)} s`, `${to.toFixed(1)} s`, worst));
    else if (told === atMost + 1) warn(`${code}-more`, `${text(`${begun.toFixed(1)} s`, `${to.toFixed(1)} s`, worst)}; later ones are not listed`);
  };
  return {
    note(at, value) {
      if (value === null) return close(at);
      if (from === null) {
        from = at;
        worst = value;
      }
      worst = Math.max(worst, value);
    },
    end: close,
  };
}
