/** A caller of a deployment's API. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd, type Recording } from '../../shared/recording.ts';

export type Client = {
  /** Creates it, and waits until it is completed. @throws where it ends otherwise, or not in time */
  record(body: Record<string, unknown>): Promise<Recording>;
  /** Fetches the file. @returns its path */
  download(id: string): Promise<string>;
};

/** Seconds beyond its own length that a recording may take from being asked for to its file. */
const PATIENCE_MS = 60_000;

/** @param directory of the files that are fetched */
export function client(url: string, headers: Readonly<Record<string, string>>, directory: string): Client {
  const ask = async (path: string, init: RequestInit = {}): Promise<Recording> => {
    const response = await fetch(`${url}/v1/recordings${path}`, { ...init, headers: { ...headers, 'content-type': 'application/json' } });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${text}`);
    return JSON.parse(text) as Recording;
  };
  return {
    async record(body) {
      const { id } = await ask('', { method: 'POST', body: JSON.stringify(body) });
      const until = Date.now() + Number(body['maxDuration'] ?? 30) * 1000 + PATIENCE_MS;
      for (;;) {
        const recording = await ask(`/${id}`);
        if (recording.state === 'completed') return recording;
        if (isEnd(recording.state) || Date.now() > until) throw new Error(`the recording is ${recording.state}: ${JSON.stringify(recording.error)}`);
        await sleep(100);
      }
    },
    async download(id) {
      const { links } = await ask(`/${id}`);
      const response = await fetch(links.file);
      if (!response.ok) throw new Error(`${links.file} answered ${response.status}: ${await response.text()}`);
      const path = join(directory, `${id}.mp4`);
      await writeFile(path, await response.bytes());
      return path;
    },
  };
}
