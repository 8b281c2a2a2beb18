/** What a run looked like, as SVG: slots that were needed and those that were there, and below how many recordings waited. */
import type { Point } from './fleet.ts';

const WIDTH = 960;
const PLOT = { left: 66, right: 20, top: 62, height: 180, gap: 34, low: 80 };

export function plot(title: string, points: readonly Point[], slots: number): string {
  const until = points.at(-1)?.time ?? 1;
  // a whole day has more looks than dots
  const every = Math.max(1, Math.ceil(points.length / 360));
  const shown = points.filter((_, i) => i % every === 0);
  // the most of those that a dot stands for
  const waits = shown.map((point, i) => ({ ...point, waiting: Math.max(...points.slice(i * every, (i + 1) * every).map(({ waiting }) => waiting)) }));
  const above = Math.max(...shown.map(({ pods, demand }) => Math.max(pods * slots, demand || 0)), 1) * 1.05;
  const below = Math.max(...points.map(({ waiting }) => waiting), 1) * 1.1;
  const lowTop = PLOT.top + PLOT.height + PLOT.gap;
  const height = lowTop + PLOT.low + 30;
  const x = (time: number) => PLOT.left + (time / until) * (WIDTH - PLOT.left - PLOT.right);
  const line = (className: string, value: (point: Point) => number, most: number, top: number, high: number, of: readonly Point[] = shown) => {
    let d = '';
    let pen = 'M';
    for (const point of of) {
      const at = value(point);
      if (Number.isNaN(at)) {
        pen = 'M';
        continue;
      }
      d += `${pen}${x(point.time).toFixed(1)} ${(top + high - (at / most) * high).toFixed(1)}`;
      pen = 'L';
    }
    return `<path class="${className}" d="${d}"/>`;
  };
  const scale = (most: number, top: number, high: number, count: number) => {
    const step = niceStep(most / count);
    let out = '';
    for (let value = 0; value <= most; value += step) {
      const y = (top + high - (value / most) * high).toFixed(1);
      out += `<path class="grid" d="M${PLOT.left} ${y}H${WIDTH - PLOT.right}"/><text class="small" x="${PLOT.left - 8}" y="${Number(y) + 4}" text-anchor="end">${value.toLocaleString('en')}</text>`;
    }
    return out;
  };
  const hours = [0.25, 0.5, 1, 2, 4].find((step) => until / 3600 / step <= 12) ?? 4;
  let times = '';
  for (let hour = 0; hour <= until / 3600 + 1e-9; hour += hours) times += `<text class="small" x="${x(hour * 3600).toFixed(1)}" y="${height - 10}" text-anchor="middle">${hour} h</text>`;
  const legend = [
    ['there', 'slots of all pods'],
    ['stay', 'slots of pods that stay'],
    ['need', 'demand'],
    ['wait', 'waiting (below)'],
  ] as const;
  const key = legend.map(([name, text], i) => `<path class="${name}" d="M${PLOT.left + i * 225} 42h22"/><text class="small" x="${PLOT.left + 28 + i * 225}" y="46">${text}</text>`).join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="15">
  <style>
    path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
    .grid { stroke: #dde3ea; stroke-width: 1; }
    .there { stroke: #9aa7b4; }
    .stay { stroke: #24527a; }
    .need { stroke: #2f6b3a; }
    .wait { stroke: #b3261e; }
    .small { font-size: 12px; fill: #444; }
  </style>
  <rect width="${WIDTH}" height="${height}" fill="#fbfcfe"/>
  <text x="${PLOT.left}" y="24" font-weight="600">${title}</text>
  ${key}
  ${scale(above, PLOT.top, PLOT.height, 5)}
  ${line('there', ({ pods }) => pods * slots, above, PLOT.top, PLOT.height)}
  ${line('stay', ({ replicas }) => replicas * slots, above, PLOT.top, PLOT.height)}
  ${line('need', ({ demand }) => demand, above, PLOT.top, PLOT.height)}
  ${scale(below, lowTop, PLOT.low, 2)}
  ${line('wait', ({ waiting }) => waiting, below, lowTop, PLOT.low, waits)}
  ${times}
</svg>
`;
}

function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return Math.max(1, [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least) ?? 10 * power);
}
