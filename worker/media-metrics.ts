/** The media sockets and pushes of all recordings of this worker, for its metrics: each recording's process tells its own. */
import { metricText } from '../shared/metrics.ts';
import { noStats, type PushState, type PushStats, type RecordingStats } from '../shared/recording.ts';
import { noCounts, roundTripBuckets, type DialOutcome, type MediaSocketCounts } from './sink/media-counts.ts';

export type AttemptMedia = {
  /** The whole of what the attempt has counted so far. */
  update(counts: MediaSocketCounts): void;
  /** A push of it has another state. */
  push(index: number, state: PushState): void;
  /** How it does, and what all of its pushes have counted so far. */
  stats(stats: RecordingStats): void;
  /** The attempt is over, however its process ended. */
  over(): void;
};

type Own = { counts: MediaSocketCounts; states: PushState[]; pushes: readonly PushStats[]; stats: RecordingStats };

export type MediaMetrics = {
  attempt(): AttemptMedia;
  /** As Prometheus reads it. */
  text(): string;
};

export function createMediaMetrics(): MediaMetrics {
  /** Of attempts that are over. */
  const past = noCounts();
  const running = new Set<Own>();
  const pastFrames = { frames: 0, dropped: 0 };
  const pastPushes = noPushCounts();

  return {
    attempt() {
      const own: Own = { counts: noCounts(), states: [], pushes: [], stats: noStats };
      running.add(own);
      return {
        update: (counts) => void (own.counts = counts),
        push: (index, state) => void (own.states[index] = state),
        stats(stats) {
          own.stats = stats;
          // a late packet takes a loss back, which a counter can't
          own.pushes = (stats.push ?? []).map((push, i) => ({ ...push, packetsLost: Math.max(push.packetsLost, own.pushes[i]?.packetsLost ?? 0) }));
        },
        over() {
          if (!running.delete(own)) return;
          add(past, own.counts);
          addPushes(pastPushes, own.pushes);
          pastFrames.frames += own.stats.frames;
          pastFrames.dropped += own.stats.dropped;
        },
      };
    },

    text() {
      const all = noCounts();
      add(all, past);
      let open = 0;
      let pressure = 0;
      const sum = noPushCounts();
      Object.assign(sum, pastPushes);
      const states: Partial<Record<PushState, number>> = { connecting: 0, publishing: 0, live: 0, reconnecting: 0, failed: 0 };
      let bitrate = 0;
      let trip = 0;
      let lag = 0;
      let { frames, dropped } = pastFrames;
      for (const { counts, states: own, pushes, stats } of running) {
        frames += stats.frames;
        dropped += stats.dropped;
        lag = Math.max(lag, stats.lagSeconds ?? 0);
        for (const state of own) if (states[state] !== undefined) states[state] += 1;
        addPushes(sum, pushes);
        for (const push of pushes) {
          bitrate += push.bitrate;
          trip = Math.max(trip, push.roundTrip ?? 0);
        }
        add(all, counts);
        if (counts.open) open += 1;
        all.waitingBytes += counts.waitingBytes;
        all.spooledBytes += counts.spooledBytes;
        pressure = Math.max(pressure, counts.pressure);
      }
      const { count, sum: seconds, within } = all.roundTrips;
      const roundTrips = [
        ...roundTripBuckets.map((le, i) => ({ suffix: '_bucket', labels: { le }, value: within[i] ?? 0 })),
        { suffix: '_bucket', labels: { le: '+Inf' }, value: count },
        { suffix: '_sum', value: seconds },
        { suffix: '_count', value: count },
      ];
      const dials = Object.entries(all.outcomes).map(([outcome, value]) => ({ labels: { outcome }, value }));
      return [
        metricText('tabreel_worker_frames_total', 'counter', 'Pictures recorded.', [{ value: frames }]),
        metricText('tabreel_worker_frames_dropped_total', 'counter', 'Pictures that a full queue of the encoder left out.', [{ value: dropped }]),
        metricText('tabreel_worker_lag_seconds', 'gauge', 'By how much what is stored lags behind what is captured, in the recording where it is most; 2 to 4 is usual.', [{ value: lag }]),
        metricText('tabreel_worker_media_sockets', 'gauge', 'Media sockets open to an ingest.', [{ value: open }]),
        metricText('tabreel_worker_media_dials_total', 'counter', 'Dials of media URLs: open, or the code of what went wrong.', dials),
        metricText('tabreel_worker_media_reconnects_total', 'counter', 'Media sockets opened after one of the same recording was lost.', [{ value: all.reconnects }]),
        metricText('tabreel_worker_media_resent_parts_total', 'counter', 'Parts sent again after a reconnect.', [{ value: all.resentParts }]),
        metricText('tabreel_worker_media_waiting_bytes', 'gauge', 'Media that waits to be stored, in memory and on disk.', [{ value: all.waitingBytes }]),
        metricText('tabreel_worker_media_spooled_bytes', 'gauge', 'Media that waits on disk.', [{ value: all.spooledBytes }]),
        metricText('tabreel_worker_media_pressure', 'gauge', 'Share of the room for waiting media that is taken, 0 to 1, in the recording where it is greatest.', [{ value: pressure }]),
        metricText('tabreel_worker_media_round_trip_seconds', 'histogram', 'Pings of media sockets.', roundTrips),
        metricText('tabreel_worker_pushes', 'gauge', 'Pushes of recordings that run, by their state.', Object.entries(states).map(([state, value]) => ({ labels: { state }, value }))),
        metricText('tabreel_worker_push_bitrate', 'gauge', 'Bits per second that leave, all pushes together.', [{ value: bitrate }]),
        metricText('tabreel_worker_push_round_trip_seconds', 'gauge', 'Round trip of the push where it is longest.', [{ value: trip }]),
        ...(Object.keys(pushCounters) as PushCounter[]).map((name) => metricText(`tabreel_worker_push_${snake(name)}_total`, 'counter', pushCounters[name], [{ value: sum[name] }])),
      ].join('');
    },
  };
}

function add(to: MediaSocketCounts, counts: MediaSocketCounts): void {
  to.reconnects += counts.reconnects;
  to.resentParts += counts.resentParts;
  for (const [outcome, value] of Object.entries(counts.outcomes) as [DialOutcome, number][]) {
    to.outcomes[outcome] = (to.outcomes[outcome] ?? 0) + value;
  }
  to.roundTrips.count += counts.roundTrips.count;
  to.roundTrips.sum += counts.roundTrips.sum;
  counts.roundTrips.within.forEach((value, i) => (to.roundTrips.within[i] = (to.roundTrips.within[i] ?? 0) + value));
}

const pushCounters = {
  framesSent: 'Pictures that were pushed.',
  framesDropped: 'Pictures that a push left out.',
  packetsSent: 'RTP packets that pushes sent.',
  packetsResent: 'RTP packets that pushes sent again.',
  packetsLost: 'RTP packets of pushes that their receivers report as lost.',
  keyFrameRequests: 'Key frames that receivers of pushes asked for.',
  reconnects: 'Sessions of pushes after their first one in which media arrived.',
} as const satisfies Partial<Record<keyof PushStats, string>>;
type PushCounter = keyof typeof pushCounters;

const noPushCounts = (): Record<PushCounter, number> =>
  ({ framesSent: 0, framesDropped: 0, packetsSent: 0, packetsResent: 0, packetsLost: 0, keyFrameRequests: 0, reconnects: 0 });
function addPushes(to: Record<PushCounter, number>, pushes: readonly PushStats[]): void {
  for (const push of pushes) for (const name of Object.keys(to) as PushCounter[]) to[name] += push[name];
}
const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
