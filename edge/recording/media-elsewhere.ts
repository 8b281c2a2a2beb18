/** Where a recording's files, live stream and events are served: here, or by the deployment that MEDIA_URL names. */
import type { Context } from 'hono';
import { TabreelError } from '../../shared/errors.ts';
import { toHttpUrl } from '../../shared/origin.ts';
import { recordingId } from '../../shared/recording.ts';
import type { AppDeps, AppEnv, Media } from '../app.ts';
import { unsupported } from '../unsupported.ts';
import { findRecord } from './control.ts';
import { linkQuery } from './view.ts';

type Handler = (c: Context<AppEnv>) => Response | Promise<Response>;

/**
 * Serves what this deployment holds; sends on, with 307, what another does. The answer goes to MEDIA_URL's own host,
 * whatever the request says, and whether there is such a recording is for that deployment to tell.
 */
export const whereMediaIs = (deps: AppDeps, serve: (deps: AppDeps, media: Media) => Handler): Handler => {
  const { media, config } = deps;
  const here = media === null ? null : serve(deps, media);
  return async (c) => {
    if (config.mediaUrl === null) {
      if (here === null) throw unsupported('files');
      return here(c);
    }
    const elsewhere = config.mediaUrl.replace(/^ws/, 'http');
    if (here !== null && cameTo(elsewhere, c, deps)) return here(c);
    // what is no id is nobody's, there as here
    if (!recordingId.safeParse(c.req.param('id')).success) throw new TabreelError('recording_not_found', `there is no recording ${c.req.param('id') ?? ''}`);
    // not what the framework made of the path: it decodes, and a header can't hold everything
    const { pathname, search } = new URL(c.req.url);
    const query = await queryThere(deps, c, search);
    // a page of another origin that plays the link follows only what it may read
    const shared = c.req.query('token') === undefined ? {} : { 'Access-Control-Allow-Origin': '*' };
    return c.body(null, 307, { ...shared, Location: `${elsewhere}${pathname}${query}`, 'Cache-Control': 'no-store' });
  };
};

/**
 * A client that follows to another host leaves his key behind: a link's token goes along instead. Whoever doesn't see
 * everything is told of his own recordings alone.
 * @throws {TabreelError} recording_not_found
 */
async function queryThere(deps: AppDeps, c: Context<AppEnv>, search: string): Promise<string> {
  const { config, keys, now } = deps;
  if (keys === null || c.req.query('token') !== undefined) return search;
  const id = c.get('caller').sees === null ? (c.req.param('id') ?? '') : (await findRecord(deps, c)).id;
  return `${await linkQuery(id, config.tokenSecrets, now())}${search.replace('?', '&')}`;
}

/** Whether the caller asked at MEDIA_URL itself, which would else send him to itself for ever. */
function cameTo(url: string, c: Context<AppEnv>, { config, factsOf }: AppDeps): boolean {
  const { host, href } = new URL(url);
  if (config.publicUrl !== null && new URL(config.publicUrl).host !== host) {
    // the origin is PUBLIC_URL whatever was asked for: Host alone still tells; who lies in it is served here, where he is
    return factsOf(c).headers.some(([name, value]) => name.toLowerCase() === 'host' && value.toLowerCase() === host);
  }
  try {
    return new URL(toHttpUrl(c.get('origin')())).href === href;
  } catch {
    // who can't be told where he came from is told where to go
    return false;
  }
}
