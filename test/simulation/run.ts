/** A scenario with a rule, one or several times, and what came of it in figures. */
import { quantile, simulate, type FleetOptions, type Result } from './fleet.ts';
import { ways } from './rules.ts';
import { withHeadroom, type Rule } from './rule.ts';
import { scenario, type ScenarioName } from './scenarios.ts';

export type Run = {
  name: ScenarioName;
  size: number;
  slots: number;
  rule: Rule;
  way?: keyof typeof ways;
  seeds?: readonly number[];
  more?: Partial<FleetOptions>;
};

/** Seconds, hours, numbers; of several runs together. */
export type Figures = Pick<Result, 'recordings' | 'missed' | 'killed' | 'handedOver' | 'interrupted' | 'started' | 'podsMean' | 'podsMost' | 'podHours' | 'leastPodHours'> & {
  p50: number;
  p95: number;
  p99: number;
  most: number;
  /** Share of those that waited for more than five seconds. */
  waited: number;
  announced: { p99: number; most: number };
  /** Least possible pod hours of those that were used. */
  efficiency: number;
};

const WAITED = 5;

export function runOnce({ name, size, slots, rule, way = 'demand', more = {} }: Omit<Run, 'seeds'>, seed: number): Result {
  const { running, ...fleet } = scenario(name, size, seed);
  const { scale, ...rest } = ways[way];
  const grace = 'grace' in rest ? { grace: rest.grace } : {};
  // it has settled for what runs when it begins, and is not to be held up by a value that is for another size
  const replicas = Math.ceil(withHeadroom(running, rule.headroom) / slots);
  const free = { ...rule, maxReplicas: Math.max(rule.maxReplicas, size * 3) };
  return simulate({ ...fleet, ...grace, slots, replicas, seed: seed + 1000, scale: scale(free, slots), ...more });
}

export function run(options: Run): Figures {
  const results = (options.seeds ?? [1]).map((seed) => runOnce(options, seed));
  const join = (key: 'waits' | 'waitsAnnounced') => Float64Array.from(results.flatMap((result) => [...result[key]])).sort();
  const sum = (key: Exclude<keyof Result, 'waits' | 'waitsAnnounced' | 'points'>) => results.reduce((all, result) => all + result[key], 0);
  const [waits, announced] = [join('waits'), join('waitsAnnounced')];
  return {
    recordings: sum('recordings'),
    missed: sum('missed'),
    killed: sum('killed'),
    handedOver: sum('handedOver'),
    interrupted: sum('interrupted'),
    started: sum('started'),
    podsMean: sum('podsMean') / results.length,
    podsMost: Math.max(...results.map(({ podsMost }) => podsMost)),
    podHours: sum('podHours'),
    leastPodHours: sum('leastPodHours'),
    p50: quantile(waits, 0.5),
    p95: quantile(waits, 0.95),
    p99: quantile(waits, 0.99),
    most: waits.at(-1) ?? 0,
    waited: waits.length === 0 ? 0 : waits.filter((wait) => wait > WAITED).length / waits.length,
    announced: { p99: quantile(announced, 0.99), most: announced.at(-1) ?? 0 },
    efficiency: sum('leastPodHours') / sum('podHours'),
  };
}
