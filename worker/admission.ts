/**
 * Whether the machine has room for one more recording: by what it has left, and by what recordings take here, both as measured.
 * SLOTS is the most that it takes; this may be less where pages are heavy, or others live on the machine too.
 */
import type { Log } from '../shared/log.ts';
import { metricText } from '../shared/metrics.ts';
import { SHM_PER_SLOT } from './capacity.ts';
import type { MachineUse } from './machine.ts';
import { createTreeMeter } from './process-use.ts';

/** Of one recording: cores, and bytes. */
export type Cost = { cpu: number; memory: number };

/** Until one has run here: four videos at 1280x720 and 30 frames a second, the dearer engine (docs/benchmarks.md). */
const PRIOR: Cost = { cpu: 0.9, memory: 600 * 2 ** 20 };
/** What a next one takes at least, even where all that ran stood still. */
const LEAST: Cost = { cpu: 0.1, memory: 150 * 2 ** 20 };
/** Share of a limit that is left alone: for the worker itself, and because a recording's needs go up and down. */
const RESERVE = 0.1;
/** Of memory, never more than so many bytes. */
const RESERVE_BYTES = 512 * 2 ** 20;
/** Once closed, so much more than what the next one takes has to be free, and for so long it stays closed, in seconds. */
const REOPEN = 1.25;
const CLOSED_SECONDS = 5;

/** Seconds: between two looks; that a measure looks back; after which a recording has come to take what it will. */
const EVERY_SECONDS = 2;
const USED_WINDOW = 4;
const COST_WINDOW = 15;
const SETTLED_SECONDS = 15;
/** Recordings that are over and still tell what the next one takes. */
const REMEMBERED = 20;

export type Resource = 'cpu' | 'memory' | 'shm';

export type Look = {
  machine: MachineUse;
  /** Bytes that are free in /dev/shm; null where that is no limit. */
  shmFree: number | null;
  /** Recordings that run: what each takes, and whether it has come to that. */
  running: readonly { cost: Cost; settled: boolean }[];
  /** What the next one takes. */
  next: Cost;
};

export type Finding = {
  /** Recordings that fit beside those that run; Infinity where nothing is known. */
  room: number;
  /** What there is least of. */
  tightest: Resource | null;
};

/** @param factor of what one more takes, that has to be free for it */
export function findRoom({ machine, shmFree, running, next }: Look, factor = 1): Finding {
  const rooms: [Resource, number][] = [];
  /** Those that have just begun will take more than they do. */
  const coming = (what: keyof Cost) => running.reduce((sum, { cost, settled }) => sum + (settled ? 0 : Math.max(0, next[what] - cost[what])), 0);
  const fits = (free: number, each: number) => Math.max(0, Math.floor(free / (each * factor) + 1e-9));
  const { cpu, memory } = machine;
  if (cpu !== null) rooms.push(['cpu', fits(cpu.limit * (1 - RESERVE) - cpu.used - coming('cpu'), next.cpu)]);
  if (memory !== null) {
    const reserve = Math.min(RESERVE_BYTES, memory.limit * RESERVE);
    rooms.push(['memory', fits(memory.limit - reserve - memory.used - coming('memory'), next.memory)]);
  }
  if (shmFree !== null) rooms.push(['shm', fits(shmFree - SHM_PER_SLOT * running.filter(({ settled }) => !settled).length, SHM_PER_SLOT)]);
  const [least] = rooms.toSorted(([, a], [, b]) => a - b);
  return least === undefined ? { room: Infinity, tightest: null } : { room: least[1], tightest: least[0] };
}

/** What the next recording takes, from those that run or ran here: three quarters of them took no more. */
export function nextCost(known: readonly Cost[], prior: Cost = PRIOR): Cost {
  if (known.length === 0) return prior;
  const upper = (what: keyof Cost) => {
    const sorted = known.map((cost) => cost[what]).toSorted((a, b) => a - b);
    return Math.max(sorted[Math.ceil(sorted.length * 0.75) - 1] as number, Math.min(LEAST[what], prior[what]));
  };
  return { cpu: upper('cpu'), memory: upper('memory') };
}

/** A recording that is counted. */
export type Seat = {
  over(): void;
};

export type Admission = AsyncDisposable & {
  /** Recordings that may run at once as things are, those that run included: at least 1, at most SLOTS. */
  limit(): number;
  /** A recording begins. @param pid of its process, once there is one */
  begin(pid: () => number | null): Seat;
  /** Null where it is open, or full by SLOTS alone. */
  closedBy(): Resource | null;
  /** Metrics, as Prometheus reads them. */
  text(): string;
};

export type AdmissionOptions = {
  slots: number;
  machine: () => Promise<MachineUse>;
  /** Bytes that are free in /dev/shm; null where that is no limit. */
  shmFree: () => number | null;
  /** Called when `limit` may have changed. */
  changed: () => void;
  log: Log;
  /** Instead of what one takes that was never measured. */
  prior?: Cost;
};

type Occupant = { pid: () => number | null; beganAt: number; cost: Cost; seconds: number | null };

/** Looks every two seconds, from now on. */
export function createAdmission(options: AdmissionOptions): Admission {
  const { slots, log } = options;
  const meter = createTreeMeter();
  const occupants = new Set<Occupant>();
  const past: Cost[] = [];
  let machine: MachineUse = { cpu: null, memory: null };
  let lookedAt: number | null = null;
  let closedAt: number | null = null;
  let closedBy: Resource | null = null;
  let toldNarrow = false;
  let limit = slots;

  const seconds = () => performance.now() / 1000;
  const isSettled = ({ beganAt }: Occupant) => seconds() - beganAt >= SETTLED_SECONDS;
  const next = () => nextCost([...past, ...[...occupants].filter(isSettled).map(({ cost }) => cost)], options.prior);
  const figures = () => {
    const { cpu, memory } = next();
    const inMiB = (bytes: number) => Math.round(bytes / 2 ** 20);
    const shmFree = options.shmFree();
    return {
      running: occupants.size,
      next: { cores: round(cpu), memoryMiB: inMiB(memory) },
      ...(machine.cpu === null ? {} : { cores: { limit: round(machine.cpu.limit), used: round(machine.cpu.used) } }),
      ...(machine.memory === null ? {} : { memoryMiB: { limit: inMiB(machine.memory.limit), used: inMiB(machine.memory.used) } }),
      ...(shmFree === null ? {} : { shmFreeMiB: inMiB(shmFree) }),
    };
  };

  const decide = () => {
    const running = [...occupants].map((occupant) => ({ cost: occupant.cost, settled: isSettled(occupant) }));
    const { room, tightest } = findRoom({ machine, shmFree: options.shmFree(), running, next: next() }, closedAt === null ? 1 : REOPEN);
    const before = limit;
    limit = Math.min(slots, Math.max(1, occupants.size + room));
    if (room > 0) toldNarrow = false;
    if (closedAt !== null && occupants.size > 0 && room > 0 && seconds() - closedAt < CLOSED_SECONDS) limit = Math.min(limit, occupants.size);
    const closed = occupants.size > 0 && limit <= occupants.size && occupants.size < slots;
    if (closed && closedAt === null) {
      closedAt = seconds();
      closedBy = tightest;
      log.info('admission closes', { by: closedBy, slots, ...figures() });
    } else if (!closed && closedAt !== null) {
      closedAt = null;
      closedBy = null;
      log.info('admission opens', { slots, ...figures() });
    } else if (closed && room === 0) closedBy = tightest;
    if (occupants.size === 0 && room === 0 && !toldNarrow) {
      toldNarrow = true;
      log.warn('the machine has no room for a recording: one is taken all the same, as none runs', { by: tightest, ...figures() });
    }
    if (limit !== before) options.changed();
  };

  const look = async () => {
    const [use, trees] = await Promise.all([
      options.machine(),
      meter([...occupants].map(({ pid }) => pid()).filter((pid) => pid !== null)),
    ]);
    const now = seconds();
    const passed = lookedAt === null ? 0 : now - lookedAt;
    lookedAt = now;
    machine = { cpu: smooth(machine.cpu, use.cpu, passed), memory: use.memory };
    for (const occupant of occupants) {
      const tree = trees.get(occupant.pid() ?? -1);
      if (tree === undefined) continue;
      const before = occupant.seconds;
      occupant.seconds = tree.seconds;
      if (before === null || passed <= 0) occupant.cost = { cpu: 0, memory: tree.memory };
      else {
        // at first all that it took so far
        const share = Math.max(1 - Math.exp(-passed / COST_WINDOW), Math.min(1, passed / (now - occupant.beganAt)));
        occupant.cost = {
          cpu: occupant.cost.cpu + (Math.max(0, tree.seconds - before) / passed - occupant.cost.cpu) * share,
          memory: occupant.cost.memory + (tree.memory - occupant.cost.memory) * share,
        };
      }
    }
    decide();
  };
  let looking: Promise<void> | null = null;
  const lookAgain = () => {
    looking ??= look()
      .catch((error: unknown) => log.warn('the machine can not be looked at', { error }))
      .finally(() => (looking = null));
  };
  const timer = setInterval(lookAgain, EVERY_SECONDS * 1000).unref();
  lookAgain();

  return {
    limit: () => limit,
    begin(pid) {
      const occupant: Occupant = { pid, beganAt: seconds(), cost: { cpu: 0, memory: 0 }, seconds: null };
      occupants.add(occupant);
      decide();
      return {
        over() {
          if (!occupants.delete(occupant)) return;
          if (isSettled(occupant) && occupant.seconds !== null) {
            past.push(occupant.cost);
            if (past.length > REMEMBERED) past.shift();
          }
          decide();
        },
      };
    },
    closedBy: () => closedBy,
    text() {
      const sum = [...occupants].reduce((all, { cost }) => ({ cpu: all.cpu + cost.cpu, memory: all.memory + cost.memory }), { cpu: 0, memory: 0 });
      const { cpu, memory } = next();
      const amount = (of: { limit: number; used: number } | null) => (of === null ? [] : [{ labels: { state: 'limit' }, value: of.limit }, { labels: { state: 'used' }, value: of.used }]);
      const reasons: readonly Resource[] = ['cpu', 'memory', 'shm'];
      return [
        metricText('tabreel_worker_admission_closed', 'gauge', '1 for what the worker has too little of to take one more, up to its slots.', reasons.map((reason) => ({ labels: { reason }, value: closedBy === reason ? 1 : 0 }))),
        metricText('tabreel_worker_room', 'gauge', 'Recordings that fit beside those that run, by what was measured.', [{ value: Math.max(0, limit - occupants.size) }]),
        metricText('tabreel_worker_cpu_cores', 'gauge', 'Cores that may be used, and that are: by the tightest limit that holds for the worker.', amount(machine.cpu)),
        metricText('tabreel_worker_memory_bytes', 'gauge', 'The same of memory, without file caches.', amount(machine.memory)),
        metricText('tabreel_worker_recordings_cpu_cores', 'gauge', 'Cores that recordings take, processes and browsers together.', [{ value: sum.cpu }]),
        metricText('tabreel_worker_recordings_memory_bytes', 'gauge', 'Memory that they have for themselves.', [{ value: sum.memory }]),
        metricText('tabreel_worker_next_cpu_cores', 'gauge', 'Cores that the next recording is reckoned to take.', [{ value: cpu }]),
        metricText('tabreel_worker_next_memory_bytes', 'gauge', 'Memory that it is reckoned to take.', [{ value: memory }]),
      ].join('');
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await looking;
    },
  };
}

/** What comes and goes within seconds neither opens nor closes. */
function smooth(before: MachineUse['cpu'], now: MachineUse['cpu'], passed: number): MachineUse['cpu'] {
  if (before === null || now === null || before.limit !== now.limit) return now;
  return { limit: now.limit, used: before.used + (now.used - before.used) * (1 - Math.exp(-passed / USED_WINDOW)) };
}

const round = (value: number): number => Math.round(value * 100) / 100;
