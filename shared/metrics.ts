/** Prometheus' text (exposition format 0.0.4). */

type Kind = 'counter' | 'gauge' | 'histogram';
export type Labels = Readonly<Record<string, string | number>>;

/** Labels as they stand behind a name; also a key for them. */
export const labelText = (labels: Labels): string => {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${String(value).replaceAll(/["\\\n]/g, '_')}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
};

export type Sample = { labels?: Labels; value: number };

/** One metric with its samples, as text. */
export function metricText(name: string, kind: Kind, help: string, samples: readonly (Sample & { suffix?: string })[]): string {
  const lines = samples.map(({ suffix = '', labels = {}, value }) => `${name}${suffix}${labelText(labels)} ${value}`);
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`, ...lines, ''].join('\n');
}
