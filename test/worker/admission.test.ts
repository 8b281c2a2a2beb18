import { describe, expect, it } from 'vitest';
import { createLog } from '../../shared/log.ts';
import { createAdmission, findRoom, nextCost, type Cost, type Look } from '../../worker/admission.ts';
import type { MachineUse } from '../../worker/machine.ts';

const GiB = 2 ** 30;
const one: Cost = { cpu: 0.8, memory: 0.5 * GiB };
const look = (more: Partial<Look> = {}): Look => ({
  machine: { cpu: { limit: 4, used: 0 }, memory: { limit: 16 * GiB, used: 2 * GiB } },
  shmFree: null,
  running: [],
  next: one,
  ...more,
});
const settled = (cost: Cost = one) => ({ cost, settled: true });

describe('room for one more', () => {
  it('is what is left of the processor, less a tenth, by what one takes', () => {
    expect(findRoom(look())).toEqual({ room: 4, tightest: 'cpu' });
    expect(findRoom(look({ machine: { cpu: { limit: 4, used: 2.9 }, memory: null } }))).toEqual({ room: 0, tightest: 'cpu' });
    expect(findRoom(look({ machine: { cpu: { limit: 4, used: 2.8 }, memory: null } }))).toEqual({ room: 1, tightest: 'cpu' });
  });

  it('is what is left of memory, and of /dev/shm, where there is less of them', () => {
    const memory = { limit: 4 * GiB, used: 2.7 * GiB };
    expect(findRoom(look({ machine: { cpu: { limit: 8, used: 0 }, memory } }))).toEqual({ room: 1, tightest: 'memory' });
    expect(findRoom(look({ shmFree: 300 * 2 ** 20 }))).toEqual({ room: 1, tightest: 'shm' });
    expect(findRoom(look({ shmFree: 100 * 2 ** 20 }))).toEqual({ room: 0, tightest: 'shm' });
  });

  it('counts what those that have just begun will come to take', () => {
    const cpu = { limit: 4, used: 1 };
    expect(findRoom(look({ machine: { cpu, memory: null }, running: [settled()] })).room).toBe(3);
    const young = { cost: { cpu: 0.1, memory: 0 }, settled: false };
    expect(findRoom(look({ machine: { cpu, memory: null }, running: [young, young] })).room).toBe(1);
  });

  it('has to be more than just enough to open again', () => {
    const machine = { cpu: { limit: 4, used: 2.7 }, memory: null };
    expect(findRoom(look({ machine })).room).toBe(1);
    expect(findRoom(look({ machine }), 1.25).room).toBe(0);
    expect(findRoom(look({ machine: { ...machine, cpu: { limit: 4, used: 2.6 } } }), 1.25).room).toBe(1);
  });

  it('is not limited by what is not known', () => {
    expect(findRoom(look({ machine: { cpu: null, memory: null } }))).toEqual({ room: Infinity, tightest: null });
  });
});

describe('what the next recording takes', () => {
  it('is a stated prior, then what three quarters of those here take at most', () => {
    expect(nextCost([]).cpu).toBe(0.9);
    expect(nextCost([{ cpu: 0.3, memory: GiB }])).toEqual({ cpu: 0.3, memory: GiB });
    const known = [0.2, 0.3, 0.4, 1.5].map((cpu, i) => ({ cpu, memory: (4 - i) * GiB }));
    expect(nextCost(known)).toEqual({ cpu: 0.4, memory: 3 * GiB });
  });

  it('is never next to nothing, even where all pages stood still', () => {
    expect(nextCost([{ cpu: 0.01, memory: 2 ** 20 }])).toEqual({ cpu: 0.1, memory: 150 * 2 ** 20 });
  });
});

describe('admission', () => {
  const of = async (machine: MachineUse, slots: number) => {
    const lines: string[] = [];
    let changes = 0;
    const admission = createAdmission({
      slots, machine: async () => machine, shmFree: () => null, changed: () => (changes += 1), prior: one,
      log: createLog('info', (line) => lines.push(line)),
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { admission, lines, changes: () => changes, events: () => lines.map((line) => (JSON.parse(line) as { event: string }).event) };
  };
  const nobody = () => null;

  it('closes at once with the recording that takes the last room, with its figures in the log, and opens when that is over', async () => {
    const { admission, events, lines, changes } = await of({ cpu: { limit: 2, used: 0.1 }, memory: null }, 4);
    await using _ = admission;
    expect(admission.limit()).toBe(2);
    const first = admission.begin(nobody);
    expect(admission.limit()).toBe(2);
    const second = admission.begin(nobody);
    expect(admission.limit()).toBe(2);
    expect(admission.closedBy()).toBe('cpu');
    expect(JSON.parse(lines[0] as string)).toMatchObject({ event: 'admission closes', by: 'cpu', running: 2, slots: 4, cores: { limit: 2, used: 0.1 }, next: { cores: 0.8, memoryMiB: 512 } });
    expect(admission.text()).toContain('tabreel_worker_admission_closed{reason="cpu"} 1');
    first.over();
    second.over();
    expect(admission.closedBy()).toBe(null);
    expect(events()).toEqual(['admission closes', 'admission opens']);
    expect(changes()).toBeGreaterThan(0);
  });

  it('takes one where nothing runs, however little there is, and says so once', async () => {
    const { admission, events } = await of({ cpu: { limit: 2, used: 2 }, memory: null }, 4);
    await using _ = admission;
    expect(admission.limit()).toBe(1);
    const seat = admission.begin(nobody);
    expect(admission.limit()).toBe(1);
    expect(admission.closedBy()).toBe('cpu');
    seat.over();
    expect(events()).toEqual(['the machine has no room for a recording: one is taken all the same, as none runs', 'admission closes', 'admission opens']);
  });

  it('is not closed where only SLOTS are taken', async () => {
    const { admission, events } = await of({ cpu: { limit: 64, used: 1 }, memory: null }, 2);
    await using _ = admission;
    admission.begin(nobody);
    admission.begin(nobody);
    expect(admission.limit()).toBe(2);
    expect(admission.closedBy()).toBe(null);
    expect(events()).toEqual([]);
  });
});
