/** What happens to a fleet: meetings that come and go, of a size that is told as the most that run at once. */
import { between, seeded } from '../soak/outcome.ts';
import type { FleetOptions, Meeting } from './fleet.ts';

export const scenarioNames = ['burst', 'day', 'webinar', 'steady', 'flash', 'spot', 'redis-away'] as const;
export type ScenarioName = (typeof scenarioNames)[number];

export const told: Readonly<Record<ScenarioName, string>> = {
  burst: 'meetings at nine: half of them announced ten minutes before, half asked for as they begin, in the first three minutes',
  day: 'a working day, with a burst at each full and half hour',
  webinar: 'an hour of many short meetings, a few webinars of four hours among them, then next to nothing but those',
  steady: 'meetings at random, as many as end',
  flash: 'ten times as many within a minute, nobody told',
  spot: 'steady, and each node has one chance in four to fail within an hour',
  'redis-away': 'a growing fleet, and Redis away for a minute',
};

export type Scenario = Pick<FleetOptions, 'meetings' | 'length' | 'settled' | 'nodeFailures' | 'redisAway'> & {
  /** Recordings that run when it begins. */
  running: number;
};

const MINUTE = 60;
const HOUR = 3600;
/** A meeting takes so long, in seconds. */
const LENGTH = [30 * MINUTE, 60 * MINUTE] as const;
const MEAN = (LENGTH[0] + LENGTH[1]) / 2;

export function scenario(name: ScenarioName, size: number, seed: number): Scenario {
  const random = seeded(seed);
  const meetings: Meeting[] = [];
  /** Two in five pages stand still (docs/benchmarks.md). */
  const cores = () => (random() < 0.4 ? 0.08 : between(random, 0.5, 0.9));
  const add = (from: number, length: number, ahead = 0) =>
    meetings.push({ from, until: from + length, asked: from - ahead, cores: cores(), ...(random() < 0.1 ? { urgent: true } : {}) });
  const usual = () => between(random, LENGTH[0], LENGTH[1]);
  /** Meetings that run when it begins, as far on as by chance. */
  const already = (count: number) => {
    for (let i = 0; i < count; i += 1) {
      const length = usual();
      add(-random() * length, length);
    }
  };
  /** As they come at random, so many at once on average. */
  const comes = (from: number, until: number, atOnce: number, length = usual) => {
    if (atOnce <= 0) return;
    const mean = length === usual ? MEAN : length();
    for (let time = from - Math.log(1 - random()) * (mean / atOnce); time < until; time -= Math.log(1 - random()) * (mean / atOnce)) add(time, length());
  };
  const many = (count: number, act: () => void) => {
    for (let i = 0; i < Math.round(count); i += 1) act();
  };

  switch (name) {
    case 'burst': {
      const nine = HOUR / 2;
      const before = Math.round(size * 0.1);
      already(before);
      comes(0, 2 * HOUR, before);
      many((size - before) / 2, () => add(nine + between(random, -20, 20), usual(), 10 * MINUTE));
      many((size - before) / 2, () => add(nine + random() * 3 * MINUTE, usual()));
      return { meetings, length: 3 * HOUR, settled: 10 * MINUTE, running: before };
    }
    case 'day': {
      /** Of the most at once, by the hour; most begin at the full hour, and ten minutes to spread. */
      const hours = [0.02, 0.02, 0.02, 0.02, 0.03, 0.05, 0.1, 0.3, 0.7, 1, 0.95, 0.8, 0.5, 0.75, 0.9, 0.85, 0.6, 0.35, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02];
      const start = Math.max(1, Math.round(size * 0.02));
      already(start);
      for (const [hour, share] of hours.entries()) {
        const next = (size * share * HOUR) / MEAN;
        // a burst of those that begin at once lasts for most of an hour, so fewer of them are as many at once
        many(next * 0.4, () => add(hour * HOUR + random() * 3 * MINUTE, usual(), random() < 0.5 ? 10 * MINUTE : 0));
        many(next * 0.25, () => add((hour + 0.5) * HOUR + random() * 3 * MINUTE, usual(), random() < 0.5 ? 10 * MINUTE : 0));
        comes(hour * HOUR, (hour + 1) * HOUR, size * share * 0.35);
      }
      return { meetings, length: 24 * HOUR, settled: 10 * MINUTE, running: start };
    }
    case 'webinar': {
      const few = Math.max(1, Math.round(size / 100));
      already(size - few);
      comes(0, HOUR, size - few);
      many(few, () => add(between(random, 10, 50) * MINUTE, 4 * HOUR));
      comes(HOUR, 6 * HOUR, size * 0.02);
      return { meetings, length: 6 * HOUR, settled: 10 * MINUTE, running: size };
    }
    case 'steady':
      already(size);
      comes(0, 4 * HOUR, size);
      return { meetings, length: 4 * HOUR, settled: 30 * MINUTE, running: size };
    case 'flash': {
      const before = Math.max(1, Math.round(size / 10));
      already(before);
      comes(0, 2 * HOUR, before);
      many(size - before, () => add(HOUR / 2 + random() * MINUTE, usual()));
      return { meetings, length: 2.5 * HOUR, settled: 10 * MINUTE, running: before };
    }
    case 'spot':
      already(size);
      comes(0, 4 * HOUR, size);
      return { meetings, length: 4 * HOUR, settled: 30 * MINUTE, running: size, nodeFailures: 0.25 };
    case 'redis-away': {
      const half = Math.max(1, Math.round(size / 2));
      already(half);
      comes(0, 2 * HOUR, half);
      comes(HOUR / 2, HOUR, half);
      return { meetings, length: 2 * HOUR, settled: 10 * MINUTE, running: half, redisAway: [45 * MINUTE, 46 * MINUTE] };
    }
  }
}
