/** What origin the edge sees, whether it is the one that was asked for, and which header is at fault where it isn't. */
import { z } from 'zod';
import { isLoopbackHost } from '../../shared/address.ts';
import { proxyAdvice, type Topic } from './advice.ts';
import { ask, problemCode, serverOf, type Access, type Answer } from './http.ts';
import { fail, ok, warn, type Finding } from './link.ts';

/** `GET /v1/origin`, as far as doctor reads it. */
const verdictSchema = z.object({
  scheme: z.string(),
  host: z.string(),
  port: z.number().nullable(),
  prefix: z.string(),
  websocket: z.string().nullish(),
  source: z.string(),
  peer: z.string().nullish(),
  trusted: z.boolean().nullish(),
  hops: z.number().nullish(),
  steps: z.array(z.unknown()).default([]),
});
export type Verdict = z.infer<typeof verdictSchema>;

const stepSchema = z.object({ what: z.string(), value: z.string().nullable(), use: z.string(), why: z.string() });

/** `used X-Forwarded-Proto: https, a trusted proxy says https`. */
const linesOf = (steps: unknown): string[] =>
  (Array.isArray(steps) ? steps : []).map((step: unknown) => {
    const parsed = stepSchema.safeParse(step);
    if (!parsed.success) return `· ${typeof step === 'string' ? step : JSON.stringify(step)}`;
    const { what, value, use, why } = parsed.data;
    return `· ${use} ${what}${value === null ? '' : `: ${value}`} (${why})`;
  });

/** The edge reads nothing that its peer's headers say. */
const mistrusts = (steps: unknown): boolean =>
  Array.isArray(steps) && steps.some((step: unknown) => stepSchema.safeParse(step).data?.what === 'peer' && stepSchema.safeParse(step).data?.use === 'ignored');

/** @returns the verdict, null where the edge gave none */
export async function originLink(base: string, access: Access): Promise<{ finding: Finding; verdict: Verdict | null; server: string | null }> {
  const answer = await ask(`${base}/v1/origin`, access);
  const server = serverOf(answer);
  const parsed = verdictSchema.safeParse(answer.json);
  if (answer.status === 200 && parsed.success) {
    const verdict = parsed.data;
    return { finding: judge(base, verdict, server), verdict, server };
  }
  return { finding: refusal(base, answer), verdict: null, server };
}

const urlOf = ({ scheme, host, port, prefix }: Verdict): string => `${scheme}://${host}${port === null ? '' : `:${port}`}${prefix}`;

function judge(base: string, verdict: Verdict, server: string | null): Finding {
  const asked = new URL(base);
  const seen = urlOf(verdict);
  const notes = [...whence(verdict), ...linesOf(verdict.steps)];
  const wrong: { topic: Topic; words: string }[] = [];
  const differs = (topic: Topic, name: string, is: string, should: string) => {
    if (is !== should) wrong.push({ topic, words: `${name}: the edge sees ${is === '' ? 'none' : is}, asked was ${should === '' ? 'none' : should}` });
  };
  differs('proto', 'scheme', verdict.scheme, asked.protocol.slice(0, -1));
  differs('host', 'host', verdict.host.toLowerCase(), asked.hostname.toLowerCase());
  // the scheme's own port follows the scheme
  if (wrong.every(({ topic }) => topic !== 'proto') || verdict.port !== null) differs('port', 'port', String(verdict.port ?? ''), asked.port);
  differs('prefix', 'prefix', verdict.prefix, asked.pathname.replace(/\/+$/, ''));
  if (wrong.length > 0) {
    const advice = wrong.flatMap(({ topic, words }) => [words, ...mend(topic, base, verdict, server)]);
    return fail(`the edge believes it is ${seen}, and was asked as ${base}`, advice, notes);
  }
  if (asked.protocol === 'http:' && !isLoopbackHost(asked.hostname)) {
    return warn(`the edge sees ${seen}: pages, media and credentials cross the network in the clear`, ['Let a proxy end TLS before it, and ask for https.'], notes);
  }
  return ok(`the edge sees ${seen}${verdict.websocket ? `, media goes to ${verdict.websocket}` : ''}`, notes);
}

const whence = ({ source, peer, trusted, hops }: Verdict): string[] => [
  [
    `from ${source}`,
    ...(peer ? [`the peer ${peer} is ${trusted ? 'trusted' : 'not trusted'}`] : []),
    ...(hops ? [`${hops} ${hops === 1 ? 'proxy' : 'proxies'} passed`] : []),
  ].join('; '),
];

const wanted: Readonly<Record<Topic, (base: URL) => string>> = {
  proto: ({ protocol }) => `X-Forwarded-Proto: ${protocol.slice(0, -1)} does not reach the edge. Let the proxy that ends TLS send it:`,
  host: ({ host }) => `Neither Host nor X-Forwarded-Host says ${host} to the edge. Let the proxy keep the Host header:`,
  port: ({ host, port }) => `The edge hears of another port than ${port === '' ? "the scheme's own" : port}. Let the proxy send Host: ${host} with its port, or X-Forwarded-Port:`,
  prefix: ({ pathname }) => `X-Forwarded-Prefix: ${pathname.replace(/\/+$/, '') || '(none)'} does not reach the edge. The proxy that takes the prefix off has to send it:`,
  upgrade: () => 'Upgrade and Connection do not reach the edge:',
  buffering: () => 'The proxy holds answers back:',
};

function mend(topic: Topic, base: string, { source, peer, trusted }: Pick<Verdict, 'source' | 'peer' | 'trusted'>, server: string | null): string[] {
  const url = new URL(base);
  if (source === 'PUBLIC_URL') return [`PUBLIC_URL says so: set it to ${base}, or unset it so that requests tell.`];
  if (trusted === false) {
    return [`The edge does not believe the headers of ${peer ?? 'its peer'}, which is not in TRUSTED_PROXIES: add the proxy's address or CIDR there.`];
  }
  return [wanted[topic](url), ...proxyAdvice(topic, server, prefixOf(base)), `  or set PUBLIC_URL=${base} on the edge`];
}

function refusal(base: string, answer: Answer): Finding {
  const code = problemCode(answer);
  const server = serverOf(answer);
  if (code === null) return fail(`GET /v1/origin: ${answer.status}, which is no answer of an edge`, ['The proxy sends this path elsewhere: let /v1 go to the edge.']);
  if (code === 'not_found') return warn('the edge has no /v1/origin', ['It is an older version: bring it up to date, or try --record.']);
  const detail = String(answer.json?.['detail'] ?? '');
  const steps = answer.json?.['steps'];
  const remedy = answer.json?.['remedy'];
  const advice = typeof remedy === 'string' ? [remedy] : [];
  if (code === 'origin_insecure' && base.startsWith('http:')) advice.unshift(`Ask for ${base.replace(/^http/, 'https')}, if TLS ends before the edge.`);
  else if (!mistrusts(steps)) {
    const topic = topics.find(([pattern]) => pattern.test(code))?.[1];
    if (topic !== undefined) advice.push(...proxyAdvice(topic, server, prefixOf(base)));
  }
  return fail(`refused, ${answer.status} ${code}: ${detail}`, advice, linesOf(steps));
}

/** Which setting of a proxy a refusal is about. */
const topics: readonly (readonly [RegExp, Topic])[] = [
  [/^origin_(insecure|proto)/, 'proto'],
  [/^origin_host_(missing|invalid)/, 'host'],
  [/^origin_port/, 'port'],
  [/^origin_prefix/, 'prefix'],
];

const prefixOf = (base: string): string => new URL(base).pathname.replace(/\/+$/, '') || '/prefix';
