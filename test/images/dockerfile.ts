/** The lines of a Dockerfile, and what of the project's files goes into a build. */
import { readFileSync } from 'node:fs';

export type Instruction = {
  keyword: string;
  /** `--name=value`, as often as it was given. */
  flags: [name: string, value: string][];
  /** What follows, continued lines joined, arguments put in. */
  value: string;
  line: number;
};

export type Stage = {
  /** After FROM, with arguments put in. */
  base: string;
  name: string | null;
  instructions: Instruction[];
};

export type Dockerfile = { path: string; text: string; defaults: Readonly<Record<string, string>>; stages: Stage[] };

/**
 * Knows what our own files use: arguments before the first FROM, flags, continued lines, the JSON form.
 * @param overrides build arguments
 */
export function readDockerfile(path: string, overrides: Readonly<Record<string, string>> = {}): Dockerfile {
  const text = readFileSync(path, 'utf8');
  const defaults: Record<string, string> = {};
  const stages: Stage[] = [];
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; i += 1) {
    const line = i + 1;
    let joined = lines[i] as string;
    if (/^\s*(#|$)/.test(joined)) continue;
    while (joined.endsWith('\\')) {
      i += 1;
      const next = lines[i] ?? '';
      if (!/^\s*#/.test(next)) joined = `${joined.slice(0, -1).trimEnd()} ${next.trim()}`;
    }
    const [, keyword = '', rest = ''] = /^\s*(\w+)\s+(.*)$/.exec(joined) ?? [];
    const flags: [string, string][] = [];
    let value = rest;
    for (let flag; (flag = /^--([\w-]+)=(\S+)\s+/.exec(value)) !== null; value = value.slice(flag[0].length)) flags.push([flag[1] as string, flag[2] as string]);
    const upper = keyword.toUpperCase();
    const stage = stages.at(-1);
    if (upper === 'FROM') {
      const [, base = '', name] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(value.replaceAll(/\$\{(\w+)\}/g, (_, arg: string) => defaults[arg] ?? '')) ?? [];
      stages.push({ base, name: name ?? null, instructions: [] });
    } else if (stage !== undefined) {
      stage.instructions.push({ keyword: upper, flags, value, line });
    } else if (upper === 'ARG') {
      const [name = '', given = ''] = value.split(/=(.*)/s);
      defaults[name] = overrides[name] ?? given;
    } else {
      throw new Error(`${path}:${line}: ${upper} before the first FROM`);
    }
  }
  return { path, text, defaults, stages };
}

/** The JSON form of an instruction. @returns null where it is the shell's */
export function jsonForm(value: string): string[] | null {
  try {
    const parsed: unknown = JSON.parse(value);
    return Array.isArray(parsed) && parsed.every((item) => typeof item === 'string') ? parsed : null;
  } catch {
    return null;
  }
}

/** `NAME=value NAME="two words"` */
export const assignments = (value: string): Record<string, string> =>
  Object.fromEntries([...value.matchAll(/([\w.]+)=(?:"([^"]*)"|(\S*))/g)].map(([, name, quoted, bare]) => [name as string, quoted ?? bare ?? '']));

/** Whether .dockerignore lets a path in. It refuses all, and names what is let in after all. */
export function contextFilter(dockerignore: string): (path: string) => boolean {
  const lines = dockerignore.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  if (lines[0] !== '*' || lines.slice(1).some((line) => !/^!?[\w./-]+$/.test(line))) throw new Error('.dockerignore: first *, then !PATH and PATH only');
  return (path) => {
    const last = lines.slice(1).findLast((line) => {
      const pattern = line.replace('!', '');
      return path === pattern || path.startsWith(`${pattern}/`);
    });
    return last?.startsWith('!') === true;
  };
}
