/** A discrete-event engine: what is to happen, in the order of its time; events of the same time as they were planned. */

export type Events = {
  /** Seconds. */
  now(): number;
  /** @param time seconds; the past is now */
  at(time: number, act: () => void): void;
  /** Runs what is due until a time, in seconds. */
  run(until: number): void;
};

type Event = { time: number; number: number; act: () => void };

export function createEvents(): Events {
  /** A binary heap: each entry before its two at 2i+1 and 2i+2. */
  const heap: Event[] = [];
  let now = 0;
  let planned = 0;
  const before = (a: Event, b: Event) => a.time < b.time || (a.time === b.time && a.number < b.number);

  const push = (event: Event) => {
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Event;
      if (!before(event, above)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = event;
  };
  const pop = (): Event => {
    const [top] = heap as [Event];
    const last = heap.pop() as Event;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      if (!before(heap[child] as Event, last)) break;
      heap[i] = heap[child] as Event;
      i = child;
    }
    heap[i] = last;
    return top;
  };

  return {
    now: () => now,
    at(time, act) {
      push({ time: Math.max(now, time), number: (planned += 1), act });
    },
    run(until) {
      while (heap.length > 0 && (heap[0] as Event).time <= until) {
        const event = pop();
        now = event.time;
        event.act();
      }
      now = until;
    },
  };
}
