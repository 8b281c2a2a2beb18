/**
 * A fleet on Kubernetes, simulated: recordings that come and end, workers that take them as ours do, a Deployment whose
 * size an autoscaler sets every 15 s from what it can see, nodes that come when there is no room, and fail.
 */
import { demandOf, DUE_SOON_MS } from '../../shared/demand.ts';
import { seeded } from '../soak/outcome.ts';
import { createEvents } from './events.ts';
import { SYNC_SECONDS } from './hpa.ts';

/** Seconds: from the pod's creation until it takes recordings, where its image is there; with a new node. */
export const POD_START = [8, 20] as const;
export const NODE_START = [60, 180] as const;
/** Slots that a node has room for: 16 cores of 2 for each slot, some of it taken by others. */
const SLOTS_OF_NODE = 7;
/** An empty node is taken away after that many seconds: cluster-autoscaler's --scale-down-unneeded-time. */
const NODE_UNNEEDED = 600;
/** Seconds until a lost worker's recordings are queued again, until it is missed in tabreel_slots, and to the next attempt of a handed over one. */
const LOST_SECONDS = 6;
const PRESENCE_SECONDS = 10;
const HAND_OVER_SECONDS = 2;
/** Seconds until all workers have told their standing again, once Redis is back. */
const STANDING_AGAIN = 4;

export type Meeting = {
  /** Seconds. A recording that is taken later misses its beginning. */
  from: number;
  until: number;
  /** When the fleet learns of it: `from`, or before where it was asked for with `startAt`. */
  asked: number;
  urgent?: boolean;
  /** Cores that it takes while it runs. */
  cores: number;
};

/** What an autoscaler can see. */
export type Sight = {
  now: number;
  /** Of the Deployment; those that leave are not in it. */
  replicas: number;
  /** Null while Redis is away. */
  demand: number | null;
  waiting: number | null;
  ready: number;
  /** Cores that workers of the Deployment use. */
  cores: number;
};

export type FleetOptions = {
  slots: number;
  meetings: readonly Meeting[];
  /** Seconds that are simulated. */
  length: number;
  /** Waits of what is due before are not told: the fleet settles. */
  settled: number;
  seed: number;
  replicas: number;
  scale: (sight: Sight) => number;
  /** Of a pod that leaves, seconds: until it hands over (DRAIN_TIMEOUT), and until it is killed (terminationGracePeriodSeconds). */
  drainTimeout?: number;
  grace?: number;
  /** Failures of a node an hour. */
  nodeFailures?: number;
  /** Seconds from and until which Redis is away. */
  redisAway?: readonly [number, number];
  /** Pods that run nothing go first: controller.kubernetes.io/pod-deletion-cost. */
  idleFirst?: boolean;
  /** Share of slots that admission keeps closed, as pages take more than their slots have. */
  closed?: number;
  /** Whether those are in the demand, where something runs beside them; default true. */
  countFull?: boolean;
};

export type Point = { time: number; demand: number; waiting: number; replicas: number; pods: number };

export type Result = {
  recordings: number;
  /** Seconds that each waited, sorted. */
  waits: Float64Array;
  /** Of those that were asked for at least DUE_SOON_MS before. */
  waitsAnnounced: Float64Array;
  /** Meetings that were over before a worker was free. */
  missed: number;
  /** Recordings whose process was killed because its pod was removed. */
  killed: number;
  /** Recordings that were given to another worker when DRAIN_TIMEOUT was over. */
  handedOver: number;
  /** Recordings that went on elsewhere after a node failed. */
  interrupted: number;
  podsMean: number;
  podsMost: number;
  /** From a pod's creation to its end; and what would do if all meetings were known, and pods came and went at once. */
  podHours: number;
  leastPodHours: number;
  started: number;
  points: Point[];
};

type Pod = {
  state: 'pending' | 'ready' | 'leaving' | 'gone';
  created: number;
  readyAt: number;
  node: Node;
  running: Set<Running>;
  inLine: boolean;
  rank: number;
  room: number;
};
type Node = { pods: number; readyAt: number; emptySince: number; gone: boolean; all: Set<Pod> };
type Running = { meeting: Meeting; pod: Pod; over: boolean };

export function simulate(options: FleetOptions): Result {
  const { slots, length, settled } = options;
  const random = seeded(options.seed);
  const between = ([from, to]: readonly [number, number]) => from + random() * (to - from);
  const events = createEvents();
  const { at } = events;
  const drainTimeout = options.drainTimeout ?? 14_400;
  const grace = options.grace ?? drainTimeout + 300;

  const queues = { again: [] as Meeting[], urgent: fifo<Meeting>(), usual: fifo<Meeting>() };
  const waitingNow = () => queues.again.length + queues.urgent.length() + queues.usual.length();
  const waits: number[] = [];
  const waitsAnnounced: number[] = [];
  const waited = (meeting: Meeting, seconds: number) => {
    waits.push(seconds);
    if (meeting.from - meeting.asked >= DUE_SOON_MS / 1000) waitsAnnounced.push(seconds);
  };
  const first = new Set<Meeting>();
  const counts = { dueSoon: 0, running: 0, cores: 0, missed: 0, killed: 0, handedOver: 0, interrupted: 0, started: 0, recordings: 0, lostStanding: 0 };
  const pods = new Set<Pod>();
  const all = { now: 0, most: 0, since: 0, seconds: 0 };
  const nodes = new Set<Node>();
  const nodeRoom = Math.max(1, Math.floor(SLOTS_OF_NODE / slots));
  const roomy: Node[] = [];
  /** Workers that ask the queue for a job, the one that has asked longest first. */
  const line = fifo<Pod>();
  const [awayFrom, awayUntil] = options.redisAway ?? [Infinity, Infinity];
  const away = (now: number) => now >= awayFrom && now < awayUntil;
  const points: Point[] = [];

  const podsChange = (by: number) => {
    const now = events.now();
    all.seconds += all.now * (now - all.since);
    all.since = now;
    all.now += by;
    all.most = Math.max(all.most, all.now);
  };

  const dispatch = () => {
    const now = events.now();
    if (away(now)) return;
    while (waitingNow() > 0) {
      const pod = line.shift();
      if (pod === undefined) return;
      pod.inLine = false;
      if (pod.state !== 'ready' || pod.running.size >= pod.room) continue;
      const meeting = (queues.again.pop() ?? queues.urgent.shift() ?? queues.usual.shift()) as Meeting;
      begin(pod, meeting, now);
      ask(pod);
    }
  };
  const ask = (pod: Pod) => {
    if (pod.inLine || pod.state !== 'ready' || pod.running.size >= pod.room) return;
    pod.inLine = true;
    line.push(pod);
  };
  const begin = (pod: Pod, meeting: Meeting, now: number) => {
    if (!first.has(meeting)) {
      first.add(meeting);
      if (meeting.from >= settled) {
        waited(meeting, now - meeting.from);
        counts.recordings += 1;
        if (meeting.until <= now) counts.missed += 1;
      }
    }
    if (meeting.until <= now) return;
    const running: Running = { meeting, pod, over: false };
    pod.running.add(running);
    counts.running += 1;
    counts.cores += meeting.cores;
    at(meeting.until, () => end(running));
  };
  const end = (running: Running) => {
    if (running.over) return;
    running.over = true;
    const { pod, meeting } = running;
    pod.running.delete(running);
    if (pod.state === 'leaving') {
      if (pod.running.size === 0) at(events.now() + HAND_OVER_SECONDS, () => gone(pod));
      return;
    }
    counts.running -= 1;
    counts.cores -= meeting.cores;
    ask(pod);
    dispatch();
  };
  /** Another worker goes on with it. */
  const again = (running: Running, delay: number) => {
    running.over = true;
    running.pod.running.delete(running);
    at(events.now() + delay, () => {
      queues.again.push(running.meeting);
      dispatch();
    });
  };

  const place = (now: number): Node => {
    for (let node = roomy.at(-1); node !== undefined; node = roomy.at(-1)) {
      if (!node.gone && node.pods < nodeRoom) return node;
      roomy.pop();
    }
    const node: Node = { pods: 0, readyAt: now + between(NODE_START), emptySince: Infinity, gone: false, all: new Set() };
    nodes.add(node);
    roomy.push(node);
    return node;
  };
  const create = (already = false) => {
    const now = events.now();
    const node = place(now);
    node.pods += 1;
    if (already) node.readyAt = now;
    // a new node's time has the pulled image and the pod's start in it
    const readyAt = already ? now : node.readyAt > now ? Math.max(node.readyAt, now + POD_START[0]) : now + between(POD_START);
    const pod: Pod = { state: 'pending', created: now, readyAt, node, running: new Set(), inLine: false, rank: random(), room: closedRoom() };
    node.all.add(pod);
    pods.add(pod);
    counts.started += 1;
    podsChange(1);
    const ready = () => {
      if (pod.state !== 'pending') return;
      pod.state = 'ready';
      ask(pod);
      dispatch();
    };
    if (already) ready();
    else at(readyAt, ready);
  };
  const closedRoom = (): number => {
    const closed = slots * (options.closed ?? 0);
    return Math.max(1, slots - Math.floor(closed) - (random() < closed % 1 ? 1 : 0));
  };
  const gone = (pod: Pod) => {
    if (pod.state === 'gone') return;
    pod.state = 'gone';
    podsChange(-1);
    const { node } = pod;
    node.all.delete(pod);
    node.pods -= 1;
    if (node.gone) return;
    roomy.push(node);
    if (node.pods > 0) return;
    const since = (node.emptySince = events.now());
    at(since + NODE_UNNEEDED, () => {
      if (node.pods > 0 || node.emptySince !== since) return;
      node.gone = true;
      nodes.delete(node);
    });
  };
  const remove = (pod: Pod) => {
    pods.delete(pod);
    if (pod.state === 'pending' || pod.running.size === 0) return gone(pod);
    pod.state = 'leaving';
    counts.running -= pod.running.size;
    for (const { meeting } of pod.running) counts.cores -= meeting.cores;
    const began = events.now();
    at(began + Math.min(drainTimeout, grace), () => {
      for (const running of pod.running) {
        counts[grace < drainTimeout ? 'killed' : 'handedOver'] += 1;
        again(running, grace < drainTimeout ? LOST_SECONDS : HAND_OVER_SECONDS);
      }
      gone(pod);
    });
  };
  /** As a ReplicaSet ranks them: pkg/controller/controller_utils.go, ActivePodsWithRanks. */
  const victims = (count: number): Pod[] => {
    const now = events.now();
    const key = (pod: Pod): readonly number[] => [
      pod.state === 'pending' && pod.node.readyAt > now ? 0 : 1,
      pod.state === 'pending' ? 0 : 1,
      options.idleFirst === true ? pod.running.size : 0,
      // more of them on one node go first; then the newest, by powers of two of their age; then by chance
      -pod.node.all.size,
      Math.floor(Math.log2(Math.max(1, now - pod.readyAt) * 1e9)),
      pod.rank,
    ];
    const keyed = [...pods].map((pod) => ({ pod, key: key(pod) }));
    const order = (a: { key: readonly number[] }, b: { key: readonly number[] }): number => {
      for (let i = 0; i < a.key.length; i += 1) {
        const by = (a.key[i] as number) - (b.key[i] as number);
        if (by !== 0) return by;
      }
      return 0;
    };
    if (count > 1) return keyed.sort(order).slice(0, count).map(({ pod }) => pod);
    return keyed.length === 0 ? [] : [keyed.reduce((least, each) => (order(each, least) < 0 ? each : least)).pod];
  };
  const fail = (node: Node) => {
    node.gone = true;
    nodes.delete(node);
    let lost = 0;
    for (const pod of node.all) {
      const kept = pod.state === 'ready';
      for (const running of pod.running) {
        counts.interrupted += 1;
        if (kept) {
          lost += 1;
          counts.running -= 1;
          counts.cores -= running.meeting.cores;
        }
        again(running, LOST_SECONDS);
      }
      // the ReplicaSet makes another one at once, where it is not the autoscaler that removed it
      if (pods.delete(pod)) create();
      gone(pod);
    }
    counts.lostStanding += lost;
    at(events.now() + PRESENCE_SECONDS, () => (counts.lostStanding -= lost));
  };

  const sight = (): Sight => {
    const now = events.now();
    let ready = 0;
    let full = 0;
    for (const pod of pods) {
      if (pod.state !== 'ready') continue;
      ready += 1;
      if (pod.running.size >= pod.room && options.countFull !== false) full += slots - pod.room;
    }
    const seen = { now, replicas: pods.size, ready, cores: counts.cores };
    if (away(now)) return { ...seen, demand: null, waiting: null };
    const told = Math.min(1, Math.max(0, (now - awayUntil) / STANDING_AGAIN));
    const running = (counts.running + counts.lostStanding) * (now >= awayUntil && awayUntil < Infinity ? told : 1);
    return { ...seen, waiting: waitingNow(), demand: demandOf({ waiting: waitingNow(), dueSoon: counts.dueSoon, running: Math.round(running), full }) };
  };
  const sync = () => {
    const seen = sight();
    const wanted = options.scale(seen);
    for (let i = seen.replicas; i < wanted; i += 1) create();
    if (wanted < seen.replicas) for (const pod of victims(seen.replicas - wanted)) remove(pod);
    points.push({ time: seen.now, demand: seen.demand ?? NaN, waiting: waitingNow(), replicas: pods.size, pods: all.now });
    at(seen.now + SYNC_SECONDS + 0.05, sync);
  };

  for (let i = 0; i < options.replicas; i += 1) create(true);
  for (const meeting of options.meetings) {
    // who asks while Redis is away is told to come again
    const from = away(meeting.from) ? awayUntil + random() * 2 : meeting.from;
    const soon = Math.max(meeting.asked, meeting.from - DUE_SOON_MS / 1000);
    if (soon < from) at(soon, () => (counts.dueSoon += 1));
    at(from, () => {
      if (soon < from) counts.dueSoon -= 1;
      (meeting.urgent === true ? queues.urgent : queues.usual).push(meeting);
      dispatch();
    });
  }
  if (awayUntil < Infinity) at(awayUntil, dispatch);
  if ((options.nodeFailures ?? 0) > 0) {
    // looked at every minute
    const minute = () => {
      for (const node of nodes) if (node.readyAt <= events.now() && random() < (options.nodeFailures ?? 0) / 60) fail(node);
      at(events.now() + 60, minute);
    };
    at(settled, minute);
  }
  at(random() * SYNC_SECONDS, sync);
  events.run(length);
  podsChange(0);
  for (const queue of [queues.urgent, queues.usual]) {
    for (let left = queue.shift(); left !== undefined; left = queue.shift()) {
      if (left.from < settled) continue;
      counts.recordings += 1;
      waited(left, length - left.from);
      if (left.until <= length) counts.missed += 1;
    }
  }

  const { recordings, missed, killed, handedOver, interrupted, started } = counts;
  return {
    recordings,
    missed,
    killed,
    handedOver,
    interrupted,
    started,
    waits: Float64Array.from(waits).sort(),
    waitsAnnounced: Float64Array.from(waitsAnnounced).sort(),
    podsMean: all.seconds / length,
    podsMost: all.most,
    podHours: all.seconds / 3600,
    leastPodHours: leastPodSeconds(options.meetings, slots, length) / 3600,
    points,
  };
}

/** As many pods as hold the meetings of each moment, none kept for anybody. */
function leastPodSeconds(meetings: readonly Meeting[], slots: number, length: number): number {
  const changes = meetings
    .flatMap(({ from, until }) => [
      { time: Math.max(0, from), by: 1 },
      { time: until, by: -1 },
    ])
    .sort((a, b) => a.time - b.time);
  let [seconds, since, count] = [0, 0, 0];
  for (const { time, by } of changes) {
    const now = Math.min(time, length);
    seconds += Math.ceil(count / slots) * (now - since);
    since = now;
    count += by;
  }
  return seconds + Math.ceil(count / slots) * (length - since);
}

function fifo<T>(): { push(item: T): void; shift(): T | undefined; length(): number } {
  let items: T[] = [];
  let head = 0;
  return {
    push: (item) => void items.push(item),
    shift() {
      if (head === items.length) return undefined;
      const item = items[head] as T;
      head += 1;
      if (head > 1000 && head * 2 > items.length) {
        items = items.slice(head);
        head = 0;
      }
      return item;
    },
    length: () => items.length - head,
  };
}

/** @param share 0 to 1, of sorted values */
export const quantile = (sorted: Float64Array, share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
