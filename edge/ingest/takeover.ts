/**
 * Which of two media sockets of a recording is the newer one, and how edges tell each other: on a lost route one edge may hold a
 * socket that looks open long after the worker has dialled another edge.
 */

/** @property dial 0 where the worker doesn't count its dials */
export type SocketNumbers = { attempt: number; dial: number };

/** Above 0 where the first is newer. Of two that can't be told apart neither is: then the one that came last counts. */
export const compareSockets = (one: SocketNumbers, other: SocketNumbers): number =>
  one.attempt - other.attempt || (one.dial === 0 || other.dial === 0 ? 0 : one.dial - other.dial);

/** On the recording's channel: this edge has this socket. */
export const socketSignal = ({ attempt, dial, edge }: SocketNumbers & { edge: string }): string => `socket ${attempt} ${dial} ${edge}`;

/** Null for a message of another kind. */
export function parseSocketSignal(message: string): (SocketNumbers & { edge: string }) | null {
  const match = /^socket (\d+) (\d+) (\S+)$/.exec(message);
  return match === null ? null : { attempt: Number(match[1]), dial: Number(match[2]), edge: match[3] as string };
}
