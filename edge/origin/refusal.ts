/** Why no origin can be told: for the caller, for the operator, and step by step. */
import { TabreelError, type ErrorCode } from '../../shared/errors.ts';

export type OriginCode = Extract<ErrorCode, `origin_${string}`>;

/** One thing that was looked at. */
export type OriginStep = {
  /** A header, a setting or the socket. */
  what: string;
  /** As it came, shortened and without credentials; null where nothing did. */
  value: string | null;
  use: 'used' | 'ignored' | 'refused';
  why: string;
};

/** `message` is for whoever asked. */
export class OriginError extends TabreelError {
  declare readonly code: OriginCode;
  /** What the operator can do: the header that is missing, the setting for his proxy. */
  readonly remedy: string;
  readonly step: OriginStep;
  /** Steps up to the refusal; taken again when asked for, since most are never read. */
  explain: () => OriginStep[];

  constructor(code: OriginCode, cause: { what: string; value: string | null; message: string; remedy: string }) {
    super(code, cause.message);
    this.name = 'OriginError';
    this.remedy = cause.remedy;
    this.step = { what: cause.what, value: shown(cause.value), use: 'refused', why: cause.message };
    this.explain = () => [this.step];
  }
}

const SHOWN = 120;

/** Of a value that should be one name: where a quote was left open in Forwarded, an extension's secret may have come into it. */
export const shownName = (value: string): string => (/[;,]\s*[\w-]+=/.test(value) ? '(hidden)' : shown(value));

/** A value that may be repeated: short, printable, and without what stands before an @. */
export function shown<T extends string | null>(value: T): T {
  if (value === null) return value;
  const at = value.lastIndexOf('@');
  const open = at === -1 ? value : `(hidden)${value.slice(at)}`;
  const short = open.length > SHOWN ? `${open.slice(0, SHOWN)}…` : open;
  return short.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (character) =>
    character === '\n' ? ', ' : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  ) as T;
}
