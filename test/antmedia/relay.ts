/** A path of UDP on loopback that loses and delays packets. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

/** What happens to the packets of one direction. Read for each packet, so it may change while they flow. */
export interface Network {
  /** Share of packets that never arrive, 0 to 1; 1 is a cut. */
  loss: number;
  /** Time on the way, in ms. */
  delay: number;
  /** Up to as many ms more, at random: packets overtake each other. */
  jitter: number;
  /** Bits a second, null for no bound. What is more waits, and is lost beyond `queue`. */
  bandwidth: number | null;
  /** Time in ms that a packet may wait for bandwidth. */
  queue: number;
}

export const clear: Readonly<Network> = { loss: 0, delay: 0, jitter: 0, bandwidth: null, queue: 200 };

export interface RelayCounts {
  /** Packets that went through. */
  passed: number;
  lost: number;
  bytes: number;
}

export interface Relay extends AsyncDisposable {
  /** The port on 127.0.0.1 that leads to this port on 127.0.0.1. */
  to(port: number): Promise<number>;
  /** Towards the receiver (`up`) and from it (`down`). */
  readonly counts: Readonly<Record<'up' | 'down', RelayCounts>>;
}

/** @param network asked for each packet @param seed of the lots that are drawn */
export function createRelay(network: (direction: 'up' | 'down') => Network, seed: number): Relay {
  const sockets = new Set<Socket>();
  const counts = { up: { passed: 0, lost: 0, bytes: 0 }, down: { passed: 0, lost: 0, bytes: 0 } };
  const random = { up: mulberry32(seed), down: mulberry32(seed + 1) };
  /** When the path is free again, by performance.now(). */
  const freeAt = { up: 0, down: 0 };
  let closed = false;

  const open = async (): Promise<Socket> => {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20, sendBufferSize: 4 << 20 });
    sockets.add(socket);
    // a port that nothing listens on any more
    socket.on('error', () => undefined);
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return socket;
  };

  const carry = (direction: 'up' | 'down', packet: Buffer, from: Socket, port: number) => {
    const { loss, delay, jitter, bandwidth, queue } = network(direction);
    const count = counts[direction];
    const lost = random[direction]() < loss;
    const late = jitter * random[direction]();
    const now = performance.now();
    let wait = 0;
    if (bandwidth !== null) {
      wait = Math.max(0, freeAt[direction] - now);
      if (!lost && wait <= queue) freeAt[direction] = now + wait + (packet.length * 8000) / bandwidth;
    }
    if (lost || wait > queue) {
      count.lost += 1;
      return;
    }
    count.passed += 1;
    count.bytes += packet.length;
    const send = () => {
      if (!closed) from.send(packet, port, '127.0.0.1');
    };
    const all = wait + delay + late;
    if (all < 0.5) send();
    else setTimeout(send, all).unref();
  };

  const fronts = new Map<number, Promise<number>>();
  const lead = async (target: number): Promise<number> => {
    const front = await open();
    // one for each port of the sender's: the receiver answers to where a packet came from
    const backs = new Map<number, Promise<Socket>>();
    const backOf = async (sender: number): Promise<Socket> => {
      const back = await open();
      back.on('message', (packet) => carry('down', packet, front, sender));
      return back;
    };
    front.on('message', (packet, { port }) => {
      const back = backs.get(port) ?? backOf(port);
      backs.set(port, back);
      void back.then((socket) => carry('up', packet, socket, target));
    });
    return (front.address() as AddressInfo).port;
  };

  return {
    counts,
    to(port) {
      const front = fronts.get(port) ?? lead(port);
      fronts.set(port, front);
      return front;
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      await Promise.all([...sockets].map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
    },
  };
}

/** Numbers from 0 to below 1, the same for the same seed. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
