/** The HTTP application: every route, and no runtime. What differs between runtimes comes in as dependencies. */
import { Hono, type Context, type MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { cors } from 'hono/cors';
import { methodNotAllowed } from 'hono/method-not-allowed';
import { secureHeaders } from 'hono/secure-headers';
import { TabreelError } from '../shared/errors.ts';
import type { Log } from '../shared/log.ts';
import { authenticate, needs, type Caller } from './access/caller.ts';
import type { KeySource } from './access/keys.ts';
import { dashboardLogin } from './access/login.ts';
import { mediaPushRoutes } from './antmedia/routes.ts';
import type { EdgeConfig } from './config.ts';
import type { Connections } from './connections.ts';
import { docsRoutes } from './docs/routes.ts';
import { doctorPageRoutes } from './doctor-page.ts';
import { healthRoutes } from './health.ts';
import type { CloseName } from './ingest/connection.ts';
import type { LiveParts } from './ingest/live.ts';
import type { EdgeMetrics } from './metrics.ts';
import type { RequestFacts } from './origin/facts.ts';
import { neighbourBase, reachableMediaBase, type MediaBase } from './origin/media.ts';
import { originPolicy, type OriginSettings } from './origin/policy.ts';
import { OriginError } from './origin/refusal.ts';
import { resolveOrigin, type OriginVerdict } from './origin/resolve.ts';
import { originRoutes } from './origin/route.ts';
import { methodProblem, problemResponse, toTabreelError } from './problem.ts';
import { recordingRoutes } from './recording/routes.ts';
import type { Storage } from './storage/storage.ts';
import { unsupported } from './unsupported.ts';
import type { Watch } from './watch.ts';

export type AppConfig = OriginSettings & Pick<EdgeConfig, 'secretsKeys' | 'maxDuration' | 'webrtc' | 'antmediaOpen' | 'metricsOpen' | 'corsOrigins'> & { tokenSecrets: readonly string[] };

/** What a process with sockets and files of its own serves beside the API. */
export type Media = {
  storage: Storage;
  live: LiveParts;
  watch: Watch;
  /** Ends the media socket that this process holds for the recording, if it holds one. */
  end(id: string, name: CloseName, reason: string): void;
};

export type AppDeps = Omit<Connections, 'close'> & {
  config: AppConfig;
  log: Log;
  /** Null where there are none: then only this machine is served. */
  keys: KeySource | null;
  /** Null on a serverless runtime: media goes to MEDIA_URL, and so does who asks for it. */
  media: Media | null;
  /** Null where a process serves few requests: its own counts would mean nothing. */
  metrics: EdgeMetrics | null;
  /** What this runtime knows of the request's way here. */
  factsOf(context: Context): RequestFacts;
  /** Which loopback this process has (shared/network-identity.ts); null where no worker can share it. */
  networkIdentity: string | null;
  /** Aborts when the process begins to leave: streams end, so that clients go elsewhere. */
  closing: AbortSignal;
  /** Mounted at /dashboard; null where the runtime can't serve it. */
  dashboard: Hono | null;
  now(): number;
};

export type AppEnv = {
  Variables: {
    caller: Caller;
    /** @throws {OriginError} */
    origin: () => OriginVerdict;
    /** Where the media of a recording that this request creates would go. @throws {OriginError} */
    mediaBase: () => Promise<MediaBase>;
    /** The WebSocket base of other servers behind the caller's host. @throws {OriginError} */
    neighbourBase: () => Promise<string>;
  };
};

const MAX_BODY_BYTES = 256 * 1024;
/** Half a year, for this host alone: what else is below its domain is not ours to speak of. */
const HSTS = 'max-age=15768000';

export function createApp(deps: AppDeps): Hono<AppEnv> {
  const { config, log, metrics, networkIdentity, presence } = deps;
  const localWorkers = networkIdentity === null ? null : () => presence.isAnyOn(networkIdentity);
  const policy = originPolicy(config);
  const app = new Hono<AppEnv>();
  tellProblems(app, log);

  if (metrics) app.use(metrics.middleware);
  app.use(
    secureHeaders({
      // pages that need more say so themselves
      overwrite: false,
      contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
      // recordings are played by pages of other origins
      crossOriginResourcePolicy: 'cross-origin',
      // below, where callers come over TLS
      strictTransportSecurity: false,
      xFrameOptions: 'DENY',
    }),
  );
  app.use((c, next) => {
    // found only where it is asked for: a health check may come with headers that tell no origin
    let verdict: OriginVerdict | null = null;
    const origin = () => (verdict ??= resolveOrigin(deps.factsOf(c), policy));
    c.set('origin', origin);
    c.set('mediaBase', () => reachableMediaBase(origin(), policy, localWorkers));
    c.set('neighbourBase', () => neighbourBase(origin(), policy, localWorkers));
    return next();
  });

  app.use(async (c, next) => {
    await next();
    if (isSecure(c)) c.res.headers.set('Strict-Transport-Security', HSTS);
  });
  if (config.corsOrigins !== undefined && config.corsOrigins.length > 0) app.use(corsOf(config.corsOrigins));
  app.use(authenticate(deps));
  app.use(methodNotAllowed({ app, onMethodNotAllowed: (c, allowed) => methodProblem(c.req.method, allowed) }));
  app.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      // the rest of the body is not read, so nothing else can come on this connection
      onError: () => problemResponse(new TabreelError('body_too_large', `the body may have ${MAX_BODY_BYTES} bytes`), { connection: 'close' }),
    }),
  );
  app.use('/metrics', needsUnlessOpen(config));
  app.route('/', healthRoutes(deps));
  app.route('/v1/recordings', recordingRoutes(deps));
  app.route('/v1/origin', originRoutes());
  app.route('/:app/rest/v1/media-push', mediaPushRoutes(deps));
  app.route('/', docsRoutes(app));
  app.route('/', doctorPageRoutes());
  if (deps.dashboard) {
    app.route('/dashboard', dashboardLogin(deps));
    app.route('/dashboard', deps.dashboard);
    // relative, so that it holds behind a prefix
    app.get('/dashboard/', (c) => c.redirect('../dashboard'));
  } else {
    app.get('/dashboard/*', () => {
      throw unsupported('dashboard');
    });
  }
  return app;
}

/** What HEALTH_PORT serves: for those who watch the process, without keys. */
export function createProbeApp(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  tellProblems(app, deps.log);
  app.route('/', healthRoutes(deps));
  return app;
}

function tellProblems(app: Hono<AppEnv>, log: Log): void {
  app.onError((thrown, c) => {
    const error = toTabreelError(thrown);
    if (error.code === 'internal') log.error('request failed', { method: c.req.method, path: c.req.path, error: thrown });
    else if (error.code === 'redis_unavailable') log.warn('Redis is away', { path: c.req.path, error: error.cause });
    else if (error instanceof OriginError) {
      const { code, message, remedy } = error;
      const level = error.kind.blame === 'service' ? 'warn' : 'info';
      log[level]('no origin', { code, method: c.req.method, path: c.req.path, detail: message, remedy, steps: error.explain() });
    }
    return problemResponse(error);
  });
  app.notFound((c) => problemResponse(new TabreelError('not_found', `there is nothing at ${c.req.path}`)));
}

function isSecure(c: Context<AppEnv>): boolean {
  try {
    return c.get('origin')().scheme === 'https';
  } catch {
    // whoever needs it is told why it can't be told
    return false;
  }
}

/** No cookies: a page sends the key itself, or a signed link. */
const corsOf = (origins: readonly string[]) =>
  cors({
    origin: origins.includes('*') ? '*' : [...origins],
    allowMethods: ['GET', 'HEAD', 'POST', 'DELETE'],
    allowHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'Last-Event-ID', 'Range'],
    exposeHeaders: ['Location', 'Retry-After', 'WWW-Authenticate', 'Content-Range', 'ETag'],
    maxAge: 600,
  });

const needsUnlessOpen = ({ metricsOpen }: AppConfig): MiddlewareHandler<AppEnv> => (metricsOpen === true ? (_c, next) => next() : needs('admin'));
