/** The media sockets of all recordings of this worker, for its metrics: each recording's process tells its own. */
import { metricText } from '../shared/metrics.ts';
import { noCounts, roundTripBuckets, type DialOutcome, type MediaSocketCounts } from './sink/media-counts.ts';

export type AttemptMedia = {
  /** The whole of what the attempt has counted so far. */
  update(counts: MediaSocketCounts): void;
  /** The attempt is over, however its process ended. */
  over(): void;
};

export type MediaMetrics = {
  attempt(): AttemptMedia;
  /** As Prometheus reads it. */
  text(): string;
};

export function createMediaMetrics(): MediaMetrics {
  /** Of attempts that are over. */
  const past = noCounts();
  const running = new Set<{ counts: MediaSocketCounts }>();

  return {
    attempt() {
      const own = { counts: noCounts() };
      running.add(own);
      return {
        update: (counts) => void (own.counts = counts),
        over() {
          if (running.delete(own)) add(past, own.counts);
        },
      };
    },

    text() {
      const all = noCounts();
      add(all, past);
      let open = 0;
      let pressure = 0;
      for (const { counts } of running) {
        add(all, counts);
        if (counts.open) open += 1;
        all.waitingBytes += counts.waitingBytes;
        all.spooledBytes += counts.spooledBytes;
        pressure = Math.max(pressure, counts.pressure);
      }
      const { count, sum, within } = all.roundTrips;
      const roundTrips = [
        ...roundTripBuckets.map((le, i) => ({ suffix: '_bucket', labels: { le }, value: within[i] ?? 0 })),
        { suffix: '_bucket', labels: { le: '+Inf' }, value: count },
        { suffix: '_sum', value: sum },
        { suffix: '_count', value: count },
      ];
      const dials = Object.entries(all.outcomes).map(([outcome, value]) => ({ labels: { outcome }, value }));
      return [
        metricText('tabreel_worker_media_sockets', 'gauge', 'Media sockets open to an ingest.', [{ value: open }]),
        metricText('tabreel_worker_media_dials_total', 'counter', 'Dials of media URLs: open, or the code of what went wrong.', dials),
        metricText('tabreel_worker_media_reconnects_total', 'counter', 'Media sockets opened after one of the same recording was lost.', [{ value: all.reconnects }]),
        metricText('tabreel_worker_media_resent_parts_total', 'counter', 'Parts sent again after a reconnect.', [{ value: all.resentParts }]),
        metricText('tabreel_worker_media_waiting_bytes', 'gauge', 'Media that waits to be stored, in memory and on disk.', [{ value: all.waitingBytes }]),
        metricText('tabreel_worker_media_spooled_bytes', 'gauge', 'Media that waits on disk.', [{ value: all.spooledBytes }]),
        metricText('tabreel_worker_media_pressure', 'gauge', 'Share of the room for waiting media that is taken, 0 to 1, in the recording where it is greatest.', [{ value: pressure }]),
        metricText('tabreel_worker_media_round_trip_seconds', 'histogram', 'Pings of media sockets.', roundTrips),
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
