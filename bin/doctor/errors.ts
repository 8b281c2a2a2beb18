/** From a recording's error code to the link that broke, and to what can be done. */
import { errorKinds } from '../../shared/errors.ts';
import { mediaRemedies } from '../../worker/sink/media-socket-causes.ts';
import { PROXIES_DOC } from './advice.ts';

/** The links of a trial recording, in their order. */
export const trialLinks = ['queued', 'page', 'media', 'stop', 'finish'] as const;
export type TrialLink = (typeof trialLinks)[number];

/** @param stored whether media was stored before; @param at the link that was waited for */
export function linkOfError(code: string, stored: boolean, at: TrialLink): TrialLink {
  if (/^(target_|start_|page_|browser_|capture_|no_frames|encoder_)/.test(code)) return 'page';
  if (/^(media_|storage_)/.test(code)) return stored && trialLinks.indexOf(at) > trialLinks.indexOf('media') ? at : 'media';
  if (/^(finish_|nothing_recorded)/.test(code)) return 'finish';
  return at;
}

const elsewhere = 'To see whether the rest holds, record a page that the worker reaches: --page URL';

/** The first that fits; a code that is not here has its title to say. */
const advice: readonly (readonly [RegExp, readonly string[]])[] = [
  [
    /^target_dns$/,
    ["The worker's machine does not resolve the external host name: give its resolver the name (split DNS, CoreDNS), or let it ask a public one."],
  ],
  [
    /^target_(unreachable|timeout)$/,
    ['The worker can not reach the external origin from where it is (hairpin NAT, egress rules, network policy): open the way, since media takes it too, or set MEDIA_URL.', elsewhere],
  ],
  [
    /^target_tls$/,
    [
      "The worker's browser refuses the certificate at the external origin: see the link `tls`. MEDIA_CA is for the media alone.",
      'Chromium believes an authority of your own by a managed policy: /etc/chromium/policies/managed/ca.json with {"CACertificates": ["<its DER in base64>"]}.',
      elsewhere,
    ],
  ],
  [/^(target_http_status|target_not_a_page|start_timeout)$/, ["The worker gets something else than the edge's page at the external origin, a login say: let its address pass."]],
  [/^browser_not_found$/, ['The worker has no browser: apt install chromium, or set CHROMIUM_PATH.']],
  [/^browser_/, ["The browser does not start or stay: see the worker's log; CHROMIUM_SANDBOX needs user namespaces, and /dev/shm and memory have to be enough."]],
  [/^(capture_|no_frames|encoder_|page_crashed)/, ['The browser can not capture: see the worker\'s log, and docs/capture.md on CAPTURE_ENGINE.']],
  [/^media_refused/, ['The ingest itself refuses the worker: has every edge the same TOKEN_SECRET, and do edges and workers use the same Redis?']],
  [/^media_backlog/, ['The way from the worker to the edge is too slow for the media.']],
  [/^storage_full/, ['Make room where STORAGE_URL points.']],
  [/^storage_unavailable/, ['The bucket of STORAGE_URL does not answer, or refuses: `/readyz` of the edge says which; see docs/storage.md.']],
  [/^worker_lost/, ["The worker died or was killed (out of memory?): see its log and its orchestrator's."]],
  [/^(finish_|nothing_recorded)/, ['See the log of the finaliser: it has to read what the edge writes, with the same STORAGE_URL, on the same disk or in the same bucket.']],
  [/^origin_insecure/, ['A proxy ends TLS and does not say so: X-Forwarded-Proto; see the link `origin`.']],
  [/^origin_loopback/, ['No worker shares the machine of the edge: ask by the ingress, or set PUBLIC_URL or MEDIA_URL to what workers can reach.']],
  [/^origin_/, ['See the link `origin`.']],
  [/^redis_/, ['Redis does not answer: see the link `ready`.']],
  [/^unauthorized/, ['The deployment wants an API key: --key KEY, or TABREEL_KEY. Where it has none, its operator makes one: tabreel key NAME.']],
  [/^forbidden/, ['The API key needs the scopes record and read.']],
  [/^too_many_re/, ['The API key is at one of its limits: use another, or try again later.']],
];

export function errorAdvice(code: string): string[] {
  if (code in mediaRemedies) return [`${mediaRemedies[code as keyof typeof mediaRemedies]}. See ${PROXIES_DOC}.`];
  const found = advice.find(([pattern]) => pattern.test(code))?.[1];
  if (found !== undefined) return [...found];
  const title = code in errorKinds ? errorKinds[code as keyof typeof errorKinds].title : 'This error is not known here';
  return [`${title}: see the logs of edge and worker.`];
}
