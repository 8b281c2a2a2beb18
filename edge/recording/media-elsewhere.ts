/** Where a recording's files, live stream and events are served: here, or by the deployment that MEDIA_URL names. */
import type { Context } from 'hono';
import { toHttpUrl } from '../../shared/origin.ts';
import type { AppDeps, AppEnv, Media } from '../app.ts';
import { unsupported } from '../unsupported.ts';

type Handler = (c: Context<AppEnv>) => Response | Promise<Response>;

/**
 * Serves what this deployment holds; sends on, with 307, what another does. The answer goes to MEDIA_URL's own host,
 * whatever the request says, and whether there is such a recording is for that deployment to tell.
 */
export const whereMediaIs = (deps: AppDeps, serve: (deps: AppDeps, media: Media) => Handler): Handler => {
  const { media, config } = deps;
  const here = media === null ? null : serve(deps, media);
  return (c) => {
    if (config.mediaUrl === null) {
      if (here === null) throw unsupported('files');
      return here(c);
    }
    const elsewhere = config.mediaUrl.replace(/^ws/, 'http');
    if (here !== null && cameTo(elsewhere, c, deps)) return here(c);
    // not what the framework made of the path: it decodes, and a header can't hold everything
    const { pathname, search } = new URL(c.req.url);
    // a page of another origin that plays the link follows only what it may read
    const shared = c.req.query('token') === undefined ? {} : { 'Access-Control-Allow-Origin': '*' };
    return c.body(null, 307, { ...shared, Location: `${elsewhere}${pathname}${search}`, 'Cache-Control': 'no-store' });
  };
};

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
