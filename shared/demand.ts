/** How many slots a fleet needs now: what its number of workers follows. */

/** A recording that begins within this time needs its worker by then: a new machine is there after one to three minutes. */
export const DUE_SOON_MS = 180_000;

export type Demand = {
  /** Recordings that wait for a slot. */
  waiting: number;
  /** Recordings with a time to begin that comes within DUE_SOON_MS. */
  dueSoon: number;
  /** Recordings on workers that take more; those on workers that leave end where they are, and need no other slot. */
  running: number;
  /**
   * Further slots of those workers where no room is left beside what runs. Without them a fleet whose pages take more than their
   * slots would look as if it had room, and recordings would wait in it (docs/scale.md).
   */
  full: number;
};

/** @returns slots, without any headroom */
export const demandOf = ({ waiting, dueSoon, running, full }: Demand): number => waiting + dueSoon + running + full;
