/** A TCP proxy on loopback that treats connections as bad networks do: for what has to live through it. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export type FaultyProxy = AsyncDisposable & {
  /** Where it listens. */
  readonly port: number;
  /** Connections that were accepted so far, and those that are open at the near side now. */
  accepted(): number;
  open(): number;
  /** Resets every connection at both ends; what is on its way is lost. @returns how many there were */
  cut(): number;
  /** Holds the bytes of all connections, both ways, those of new ones too, for so many milliseconds; then they go on. */
  stall(milliseconds: number): void;
  /**
   * Whatever the next connection sends, and its end, arrives by so many milliseconds later, also where the near side is gone
   * by then: a connection that is opened after it overtakes it.
   */
  delayNext(milliseconds: number): void;
  /** From now on all bytes of the open connections towards the target come so much later, as with `delayNext`. */
  delay(milliseconds: number): void;
  /**
   * Resets the near side of every connection. The far side isn't told, is sent what was held for it, and stays open: what a
   * lost route or a machine without power leaves behind. @returns how many there were
   */
  halfOpen(): number;
  /** The open connections stay open at both ends, and nothing comes through them any more. */
  silence(): void;
  /** Whether new connections are reset at once. */
  refuse(refused: boolean): void;
  close(): Promise<void>;
};

/** Bytes held in one direction, above which no more are read, so that the sender feels it. */
const HELD_BYTES = 1024 * 1024;

/** One direction of a connection: bytes and the end go through in order, not before their time. */
function createLane(from: Socket, to: Socket, heldUntil: () => number, delay: () => number) {
  const queue: { data: Buffer | null; due: number }[] = [];
  let held = 0;
  let lastDue = 0;
  let timer: NodeJS.Timeout | undefined;
  let silent = false;

  const flow = () => {
    timer = undefined;
    for (let next = queue[0]; next !== undefined; next = queue[0]) {
      const wait = Math.max(next.due, heldUntil()) - performance.now();
      if (wait > 0) {
        timer = setTimeout(flow, wait);
        return;
      }
      queue.shift();
      if (next.data === null) to.end();
      else {
        held -= next.data.length;
        // a target that doesn't read is felt by the sender
        if (!to.destroyed && !to.write(next.data)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      }
    }
    if (held < HELD_BYTES && to.writableLength === 0) from.resume();
  };
  const put = (data: Buffer | null) => {
    if (silent) return;
    // a delay that shrinks doesn't let bytes overtake each other
    lastDue = Math.max(lastDue, performance.now() + delay());
    queue.push({ data, due: lastDue });
    held += data?.length ?? 0;
    if (held > HELD_BYTES) from.pause();
    if (timer === undefined) flow();
  };
  from.on('data', put);
  from.on('end', () => put(null));

  return {
    silence() {
      silent = true;
      queue.length = 0;
      from.resume();
    },
    drop() {
      silent = true;
      queue.length = 0;
      clearTimeout(timer);
    },
  };
}

/** @param target port on 127.0.0.1; a function is asked for each connection */
export async function startFaultyProxy(target: number | (() => number)): Promise<FaultyProxy> {
  type Connection = { near: Socket; far: Socket; up: ReturnType<typeof createLane>; down: ReturnType<typeof createLane>; delay: number };
  const connections = new Set<Connection>();
  let accepted = 0;
  let stalledUntil = 0;
  let nextDelay = 0;
  let refused = false;

  const server = createServer({ allowHalfOpen: true }, (near) => {
    near.on('error', () => undefined);
    if (refused) return void near.resetAndDestroy();
    accepted += 1;
    const far = connect({ port: typeof target === 'number' ? target : target(), host: '127.0.0.1', allowHalfOpen: true });
    far.on('error', () => undefined);
    const delay = nextDelay;
    nextDelay = 0;
    const connection: Connection = {
      near,
      far,
      delay,
      up: createLane(near, far, () => stalledUntil, () => connection.delay),
      down: createLane(far, near, () => stalledUntil, () => 0),
    };
    connections.add(connection);
    far.on('close', () => {
      connections.delete(connection);
      connection.up.drop();
      // with an error it was reset; otherwise its end is on its way
      if (far.errored) near.resetAndDestroy();
      else if (!near.destroyed) near.end();
    });
    near.on('close', () => {
      if (!near.errored || far.destroyed) return;
      // a reset follows what was sent before it
      setTimeout(() => far.resetAndDestroy(), Math.max(0, stalledUntil - performance.now(), connection.delay));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const each = (act: (connection: Connection) => void): number => {
    const found = [...connections].filter(({ near }) => !near.destroyed);
    found.forEach(act);
    return found.length;
  };

  const close = async () => {
    for (const { near, far, up, down } of connections) {
      up.drop();
      down.drop();
      near.destroy();
      far.destroy();
    }
    server.close();
    if (server.listening) await once(server, 'close');
  };
  return {
    port: (server.address() as AddressInfo).port,
    accepted: () => accepted,
    open: () => [...connections].filter(({ near }) => !near.destroyed).length,
    cut: () =>
      each(({ near, far, up, down }) => {
        up.drop();
        down.drop();
        near.resetAndDestroy();
        far.resetAndDestroy();
      }),
    stall: (milliseconds) => void (stalledUntil = performance.now() + milliseconds),
    delayNext: (milliseconds) => void (nextDelay = milliseconds),
    delay: (milliseconds) => void each((connection) => (connection.delay = milliseconds)),
    halfOpen: () =>
      each(({ near, down }) => {
        near.removeAllListeners('close');
        down.silence();
        near.resetAndDestroy();
      }),
    silence: () =>
      void each(({ up, down }) => {
        up.silence();
        down.silence();
      }),
    refuse: (value) => void (refused = value),
    close,
    [Symbol.asyncDispose]: close,
  };
}
