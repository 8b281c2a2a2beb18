/** `tabreel doctor URL`: tries every link of the way to a deployment, and says which is broken and what to do about it. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { trustedAuthorities } from '../shared/authorities.ts';
import { ConfigError } from '../shared/config.ts';
import { LINK_TIMEOUT_MS, type Access } from './doctor/http.ts';
import { linkRunner, plain, skipped, type Link } from './doctor/link.ts';
import { dnsLink, healthLink, keyLink, readyLink, tcpLink, tlsLink } from './doctor/links.ts';
import { originLink, type Verdict } from './doctor/origin.ts';
import { renderLink, summarise } from './doctor/report.ts';
import { defaultPatience, tryRecording, type Patience, type Trial } from './doctor/trial.ts';
import { upgradeLink } from './doctor/upgrade.ts';

export type DoctorArguments = {
  url: string;
  /** Whether a recording is sent through it. */
  record: boolean;
  /** A page to record instead of the edge's own. */
  page: string | null;
  /** Whether that recording stays. */
  keep: boolean;
  json: boolean;
  /** A PEM file of an authority to believe beside Node's own and the system's. */
  ca: string | null;
  /** An API key of the deployment; null for none. */
  key: string | null;
};

export type DoctorReport = {
  url: string;
  /** Whether no link is broken. */
  ok: boolean;
  links: Link[];
  /** What the edge takes its origin for; null where it didn't say. */
  origin: Verdict | null;
  /** Null where none was asked for. */
  recording: Trial | null;
};

/** @returns the exit code: 0 if every link holds, 1 if one is broken, 130 for Ctrl-C */
export async function doctorCommand(args: DoctorArguments, self: NodeJS.Process): Promise<number> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) self.once(signal, () => stop.abort(new Error('interrupted')));
  const print = (text: string) => self.stdout.write(`${text}\n`);
  try {
    const report = await examine({ ...args, key: args.key ?? (self.env['TABREEL_KEY'] || null) }, {
      signal: stop.signal,
      tell: (link) => args.json || print(renderLink(link, self.stdout)),
      say: (line) => args.json || self.stderr.write(`${' '.repeat(17)}${plain(line)}\n`),
    });
    print(args.json ? JSON.stringify(report, null, 2) : `\n${summarise(report.links)}`);
    return report.ok ? 0 : 1;
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    self.stderr.write('tabreel: interrupted\n');
    return 130;
  }
}

export type ExamineOptions = {
  signal: AbortSignal;
  /** Takes each link as soon as it is known. */
  tell(link: Link): void;
  /** Takes a line about what happens between links. */
  say(line: string): void;
  /** Milliseconds that a link may take, and those of a recording. */
  timeout?: number;
  patience?: Partial<Patience>;
};

/** @throws {ConfigError} for an address or an authority that can't be used; the signal's reason */
export async function examine(args: Omit<DoctorArguments, 'json'>, options: ExamineOptions): Promise<DoctorReport> {
  const base = baseOf(args.url);
  const url = new URL(base);
  let access: Access = { ca: await authorities(args.ca), verify: true, timeout: options.timeout ?? LINK_TIMEOUT_MS, signal: options.signal, key: args.key === null ? null : { value: args.key, origin: url.origin } };
  const links: Link[] = [];
  const tryLink = linkRunner((link) => {
    links.push(link);
    options.tell(link);
  }, options.signal);
  const skip = async (names: readonly string[], why: string) => {
    for (const name of names) await tryLink(name, () => skipped(why));
  };
  const report = (origin: Verdict | null, recording: Trial | null): DoctorReport => ({ url: base, ok: links.every(({ mark }) => mark !== 'fail'), links, origin, recording });
  const reaches = ['health', 'ready', 'origin', ...(args.key === null ? [] : ['key']), 'upgrade', ...(args.record ? ['recording'] : [])];
  const secure = url.protocol === 'https:';

  let addresses: string[] = [];
  await tryLink('dns', async () => {
    const result = await dnsLink(url, access);
    addresses = result.addresses;
    return result.finding;
  });
  if (addresses.length === 0) {
    await skip(['tcp', ...(secure ? ['tls'] : []), ...reaches], 'not tried: the name has no address');
    return report(null, null);
  }
  if ((await tryLink('tcp', () => tcpLink(url, addresses, access))).mark === 'fail') {
    await skip([...(secure ? ['tls'] : []), ...reaches], 'not tried: there is no connection');
    return report(null, null);
  }
  if (secure) {
    await tryLink('tls', async () => {
      const { finding, trusted } = await tlsLink(url, access, args.ca !== null);
      access = { ...access, verify: trusted };
      return finding;
    });
  }

  let edge = false;
  let server: string | null = null;
  await tryLink('health', async () => {
    const result = await healthLink(base, access);
    ({ edge, server } = result);
    return result.finding;
  });
  if (!edge) {
    await skip(reaches.slice(1), 'not tried: no edge answers');
    return report(null, null);
  }
  await tryLink('ready', () => readyLink(base, access));
  let verdict = null as Verdict | null;
  await tryLink('origin', async () => {
    const result = await originLink(base, access);
    verdict = result.verdict;
    return result.finding;
  });
  if (args.key !== null) await tryLink('key', () => keyLink(base, access));
  await tryUpgrades();
  if (!args.record) return report(verdict, null);
  if (!access.verify) {
    await skip(['recording'], 'not tried: the certificate is refused');
    return report(verdict, null);
  }
  const patience = { ...defaultPatience, ...options.patience };
  const trial = await tryRecording({ base, access, page: args.page, server, keep: args.keep, patience, tryLink, say: options.say });
  return report(verdict, trial);

  /** By the address that was asked for, and where the media goes elsewhere, by that too. */
  async function tryUpgrades(): Promise<void> {
    const asked = base.replace(/^http/, 'ws');
    const media = verdict?.websocket?.replace(/\/+$/, '') ?? asked;
    // where the origin was told wrong its media URL is too, and the way that was asked for is the one to look at
    const elsewhere = media !== asked;
    await tryLink('upgrade', () => upgradeLink(media, access));
    if (elsewhere && links.some(({ name, mark }) => name === 'origin' && mark === 'fail')) {
      await tryLink('upgrade 2', () => upgradeLink(asked, access));
    }
  }
}

/** @throws {ConfigError} that doesn't repeat a password */
function baseOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^https?:$/.test(url.protocol)) throw new ConfigError('doctor: the URL must begin with http:// or https://');
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new ConfigError('doctor: the URL must be scheme, host, port and path only');
  }
  return url.href.replace(/\/+$/, '');
}

/** Those that are trusted anyway, and the one that was given. */
async function authorities(path: string | null): Promise<string[]> {
  const known = trustedAuthorities();
  if (path === null) return known;
  try {
    const pem = await readFile(path, 'utf8');
    new X509Certificate(pem);
    return [...known, pem];
  } catch (error) {
    throw new ConfigError(`--ca ${path}: must be a file with a certificate in PEM (${(error as Error).message})`);
  }
}
