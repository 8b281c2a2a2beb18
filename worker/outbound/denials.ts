/** What was denied to the page of one recording: its caller reads of it, and the worker counts it. A page may try as often as it likes. */
import type { Denial, DenialClass } from '../../shared/outbound/policy.ts';
import type { FromRecorder } from '../process-protocol.ts';
import type { Target } from './dial.ts';

/** Targets that are told of; of more there is a last word. */
const MAX_TOLD = 16;
const COUNT_EVERY_MS = 1000;

export type Denials = Disposable & {
  denied(target: Target, denial: Denial): void;
};

/** Disposing tells what was not counted yet. */
export function createDenials(report: (message: FromRecorder) => void): Denials {
  const told = new Set<string>();
  let dials: Partial<Record<DenialClass, number>> = {};
  let timer: NodeJS.Timeout | undefined;
  const count = () => {
    clearTimeout(timer);
    timer = undefined;
    if (Object.keys(dials).length > 0) report({ type: 'denied', dials });
    dials = {};
  };
  const warn = (message: string) => report({ type: 'warning', code: 'blocked', message });
  return {
    denied({ host, port }, denial) {
      dials[denial.class] = (dials[denial.class] ?? 0) + 1;
      timer ??= setTimeout(count, COUNT_EVERY_MS).unref();
      const name = `${host.toLowerCase()}${port === 80 || port === 443 ? '' : `:${port}`}`;
      if (told.has(name) || told.size > MAX_TOLD) return;
      told.add(name);
      warn(told.size > MAX_TOLD ? 'blocked: further addresses, which are not listed' : `blocked: ${name}, ${denial.reason}`);
    },
    [Symbol.dispose]: count,
  };
}
