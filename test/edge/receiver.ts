/** Somebody whom webhooks are told to: keeps what comes, answers as it is told to, and verifies signatures. */
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { eventually } from './harness.ts';

export type Delivery = {
  id: string;
  /** When it came, milliseconds since the epoch. */
  at: number;
  headers: IncomingHttpHeaders;
  body: any;
  state: string;
  /** Whether the signature is right for the receiver's secret. */
  signed: boolean;
  /** Of the answer; null while it is held back. */
  status: number | null;
};

/** A status, or null to answer never. */
type Answer = (delivery: Delivery, all: readonly Delivery[]) => number | null | Promise<number | null>;

export type Receiver = AsyncDisposable & {
  url: string;
  /** In the order in which they came. */
  deliveries: Delivery[];
  /** States that were answered with a 2xx. */
  taken(): string[];
  until(count: number, timeout?: number): Promise<void>;
};

export async function startReceiver(secret: string, answer: Answer = () => 204, port = 0): Promise<Receiver> {
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret, 'utf8');
  const deliveries: Delivery[] = [];
  const respond = (response: ServerResponse, status: number) =>
    response.writeHead(status, status >= 300 && status < 400 ? { location: '/elsewhere' } : {}).end('x'.repeat(status === 204 ? 0 : 100_000));
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const { headers } = request;
      const id = String(headers['webhook-id']);
      const expected = `v1,${createHmac('sha256', key).update(`${id}.${String(headers['webhook-timestamp'])}.${text}`).digest('base64')}`;
      const body = JSON.parse(text);
      const signed = headers['webhook-signature'] === expected && Math.abs(Date.now() / 1000 - Number(headers['webhook-timestamp'])) < 10;
      const delivery: Delivery = { id, at: Date.now(), headers, body, state: body.data.state, signed, status: null };
      deliveries.push(delivery);
      void Promise.resolve(answer(delivery, deliveries)).then((status) => {
        delivery.status = status;
        if (status !== null) respond(response, status);
      });
    });
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  const taken = () => deliveries.filter(({ status }) => status !== null && status >= 200 && status < 300).map(({ state }) => state);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?key=url-secret`,
    deliveries,
    taken,
    async until(count, timeout) {
      await eventually(async () => deliveries.filter(({ status }) => status !== null).map(({ state, status }) => [state, status]), (seen) => seen.length >= count, timeout);
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
