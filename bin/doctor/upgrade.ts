/** Whether a WebSocket upgrade gets as far as the edge's ingest. Nothing is opened: the ingest refuses a dial without a credential. */
import { randomBytes } from 'node:crypto';
import { MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import { mediaUrlOf } from '../../shared/origin.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { certificateAdvice, proxyAdvice } from './advice.ts';
import { ask, problemCode, serverOf, type Access, type Answer } from './http.ts';
import { because, codeOf, fail, ok, warn, type Finding } from './link.ts';

/** What the ingest itself answers to a made-up recording without a credential; no other route of the edge does. */
const ingestCodes = new Set(['unauthorized', 'recording_not_found', 'live_over']);

/** @param base http(s) or ws(s), without a slash at its end */
export async function upgradeLink(base: string, access: Access): Promise<Finding> {
  const id = newRecordingId();
  const url = mediaUrlOf(base, id);
  const shown = url.replace(id, '…').replace(/^http/, 'ws');
  let answer: Answer;
  try {
    answer = await ask(url.replace(/^ws/, 'http'), access, {
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': randomBytes(16).toString('base64'),
        'sec-websocket-protocol': MEDIA_SUBPROTOCOL,
      },
    });
  } catch (error) {
    access.signal.throwIfAborted();
    return fail(`${shown}: ${because(error)}`, dialAdvice(codeOf(error), url));
  }
  return verdictOn(shown, answer);
}

function verdictOn(shown: string, answer: Answer): Finding {
  const { status } = answer;
  const code = problemCode(answer);
  const server = serverOf(answer);
  if (code !== null && ingestCodes.has(code)) return ok(`${shown}: the ingest itself answers (${status} ${code}, as it should without a credential)`);
  if (code === 'redis_unavailable') return warn(`${shown}: the edge answers, but ${String(answer.json?.['detail'] ?? code)}`, ['See the link `ready`.']);
  if (code === 'not_found') return fail(`${shown}: the edge has no such path: a proxy changes it for upgrades`, ['Let upgrades go the same way as requests, the prefix taken off.', ...proxyAdvice('prefix', server)]);
  if (code === 'unsupported_here') return fail(`${shown}: this deployment takes no media`, ['Set MEDIA_URL to the one that does.']);
  if (code !== null) {
    return fail(`${shown}: the edge got a plain request, its Upgrade header was lost on the way (${status} ${code})`, [
      'A proxy has to pass the headers Upgrade and Connection on, over HTTP/1.1:',
      ...proxyAdvice('upgrade', server),
    ]);
  }
  const by = server ?? 'something before the edge';
  if (status === 101) return fail(`${shown}: ${by} opens a WebSocket without a credential: it is not the ingest`, ['The path of the media socket goes to another service: let /v1 go to the edge.']);
  if ([502, 503, 504].includes(status)) return fail(`${shown}: ${status} from ${by}: it finds no edge for upgrades`, ['Let upgrades go to the same edge as requests.', ...proxyAdvice('upgrade', server)]);
  if ([401, 403, 407].includes(status)) {
    return fail(`${shown}: ${status} from ${by}, not from the edge`, ["Something before the edge wants a login, or forbids upgrades: let /v1/recordings/*/media pass, the ingest checks the worker's credential."]);
  }
  if (status >= 300 && status < 400) return fail(`${shown}: ${by} redirects (${status}), which a WebSocket does not follow`, ['Let the media URL be the place itself: ask for https, or set MEDIA_URL.']);
  return fail(`${shown}: ${by} answered ${status} to the upgrade`, ['A proxy has to pass the headers Upgrade and Connection on, over HTTP/1.1:', ...proxyAdvice('upgrade', server)]);
}

/** What to do where the media URL can't be reached at all. */
function dialAdvice(code: string, url: string): string[] {
  const { host, hostname } = new URL(url);
  if (/CERT|SIGNATURE|ISSUER|ALTNAME/.test(code)) return certificateAdvice(code, hostname);
  if (code === 'ECONNREFUSED') return [`Nothing takes media at ${host}: is the port right? Where MEDIA_URL is set, is it that of a deployment that runs?`];
  if (/ENOTFOUND|EAI_AGAIN/.test(code)) return [`${hostname} has to resolve for workers: look at MEDIA_URL, PUBLIC_URL and the Host header that reaches the edge.`];
  if (code === 'ECONNRESET' || code === 'EPIPE' || code === 'HPE_INVALID_CONSTANT') return ['A proxy cuts upgrades off:', ...proxyAdvice('upgrade', null)];
  return [`Workers dial ${host} for media: look at what stands between, or set MEDIA_URL.`];
}
