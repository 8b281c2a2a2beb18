/**
 * One signalling session with an Ant Media Server, from its dial to its end: asks for ICE servers, publishes, exchanges the
 * descriptions, publishes anew where no media connection comes about, and watches that media is heard. That the server says
 * `publish_started` proves nothing: it says so when it has our description.
 */
import type { SecureContext } from 'node:tls';
import { isLoopbackHost } from '../../shared/address.ts';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import type { Lookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import { hostOf } from '../sink/media-dial.ts';
import { definitionError } from './definitions.ts';
import { createGuard } from './guard.ts';
import { setUpIce, type IceServer } from './ice-servers.ts';
import { createPeer, type Peer } from './peer.ts';
import type { Sender } from './sender.ts';
import { connectSignalling, type ServerMessage, type SignallingTimes } from './signalling.ts';

/** Milliseconds. */
export type SessionTimes = SignallingTimes & {
  /** For the server's list of ICE servers, which not every server has. */
  iceServers: number;
  /** For its answers to `publish` and to our offer. */
  answer: number;
  /** For the media connection; then it is published anew, after a pause, so many times. */
  ice: number;
  republishPause: number;
  republish: number;
  /** Without a word about the media that is sent. */
  unheard: number;
  /** For `publish_finished` after our `stop`. */
  stop: number;
};

export type PushTarget = {
  type: 'antmedia';
  /** Absolute `wss://host/app/websocket` (or `ws://`). */
  url: string;
  streamId: string;
  /** Never logged, nor is subscriberCode. */
  token?: string | undefined;
  subscriberId?: string | undefined;
  subscriberCode?: string | undefined;
  iceServers?: readonly IceServer[] | undefined;
};

export type SessionOptions = {
  target: PushTarget;
  trust: SecureContext | null;
  /** PEMs, for TURN over TLS. */
  trusted: string[];
  judge: Judge;
  lookup: Lookup;
  times: SessionTimes;
  /** As SDP has it. */
  profileLevelId: string;
  audio: boolean;
  sender: Sender;
  log: Log;
  events: {
    /** The media connection is there. */
    publishing(): void;
    /** Media arrives: the receiver has told of packets that were sent. */
    live(): void;
    /** Once, at the end. */
    ended(error: TabreelError): void;
  };
};

export type Session = {
  /** Ends it in good order; `ended` isn't called any more. */
  stop(): Promise<void>;
};

/** Dials at once. The URL must be parseable. */
export function startSession(options: SessionOptions): Session {
  const { target, times, sender, events, judge, lookup, trusted } = options;
  const { streamId } = target;
  const host = hostOf(target.url);
  const log = options.log.with({ host, streamId });
  const failure = (...[code, what]: [ConstructorParameters<typeof TabreelError>[0], string]) => new TabreelError(code, `${host}: ${what}`);

  let over = false;
  let stopping: (() => void) | null = null;
  let published = false;
  /** The one that publishes now; what an earlier one still says is not heard. */
  let peer: Peer | null = null;
  let publications = 0;
  let finishedAnew: (() => void) | null = null;
  let serversOfServer: ((servers: readonly IceServer[]) => void) | null = null;
  let ice: readonly IceServer[] = target.iceServers ?? [];
  /** What it said before its peer was there. */
  let early: ServerMessage[] = [];
  let heardAt = 0;
  let isLive = false;
  const timers = new Set<NodeJS.Timeout>();

  const after = (milliseconds: number, what: () => void): NodeJS.Timeout => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      what();
    }, milliseconds);
    timers.add(timer);
    return timer;
  };
  const clear = (timer: NodeJS.Timeout | undefined) => {
    clearTimeout(timer);
    if (timer !== undefined) timers.delete(timer);
  };

  const letPeerGo = () => {
    const leaving = peer;
    peer = null;
    isLive = false;
    sender.detach();
    void leaving?.close().catch((error: unknown) => log.debug('push peer did not close well', { error }));
  };
  const tidy = () => {
    over = true;
    for (const timer of timers) clearTimeout(timer);
    clearInterval(reports);
    letPeerGo();
  };
  const end = (error: TabreelError) => {
    if (over) return;
    tidy();
    signalling.close();
    events.ended(error);
  };

  const publish = () => {
    if (over) return;
    publications += 1;
    early = [];
    log.info('push publishes', { publication: publications });
    signalling.send({
      command: 'publish',
      streamId,
      token: target.token ?? '',
      subscriberId: target.subscriberId ?? '',
      subscriberCode: target.subscriberCode ?? '',
      streamName: '',
      mainTrack: '',
      video: true,
      audio: options.audio,
      metaData: '',
      role: '',
    });
    published = true;
    clear(waiting);
    waiting = after(times.answer, () => end(failure('push_unavailable', `it did not answer within ${times.answer / 1000} s that the stream may start`)));
  };
  let waiting: NodeJS.Timeout | undefined;

  /** ICE didn't come about: the server may have lost our candidates, or be short of ports for the moment. */
  const publishAnew = (what: string) => {
    letPeerGo();
    if (publications > times.republish) return end(failure('push_ice_failed', `${what}, ${publications} times`));
    log.warn('push has no media connection', { what, publication: publications });
    signalling.send({ command: 'stop', streamId });
    clear(waiting);
    const again = () => {
      finishedAnew = null;
      clear(waiting);
      waiting = after(times.republishPause, publish);
    };
    finishedAnew = again;
    waiting = after(times.republishPause * 2, again);
  };

  const heard = () => {
    heardAt = performance.now();
    if (isLive || over) return;
    isLive = true;
    events.live();
  };

  const start = async (): Promise<void> => {
    const number = publications;
    clear(waiting);
    const stale = () => over || number !== publications || stopping !== null;
    // names are looked up each time: what they lead to may have changed
    const { setup, problems } = await setUpIce(ice, judge, trusted, lookup);
    if (stale()) return;
    for (const { url, denied, what } of problems) {
      const told = url.split('?')[0] ?? '';
      if (denied && target.iceServers !== undefined) return end(new TabreelError('push_forbidden', `${told} ${what}`));
      log.warn('push does without an ICE server', { url: told, what });
    }
    if (isLoopbackHost(new URL(target.url).hostname)) setup.additionalHosts = ['127.0.0.1'];
    const guard = createGuard(new URL(target.url).hostname, judge);
    for (const { address, port } of setup.open) guard.open(address, port);
    const mine: Peer = await createPeer({
      ice: setup,
      guard,
      profileLevelId: sender.profileLevelId() ?? options.profileLevelId,
      audio: options.audio,
      log,
      events: {
        candidate: ({ candidate, label, id }) => {
          if (mine === peer) signalling.send({ command: 'takeCandidate', streamId, label, id, candidate });
        },
        connected() {
          if (mine !== peer) return;
          clear(waiting);
          if (mine.video === null) return end(failure('push_codec_disabled', 'it takes no H.264'));
          log.info('push has a media connection', { publication: publications });
          heardAt = performance.now();
          events.publishing();
          mine.report();
          sender.attach(mine);
        },
        lost(what) {
          if (mine !== peer) return;
          if (mine.video === null) publishAnew(what);
          else end(failure('push_unreachable', what));
        },
        keyFrameWanted: () => mine === peer && sender.keyFrameRequested(),
        missing: (sequence) => mine === peer && sender.missing(sequence),
        fates(fates) {
          if (mine !== peer) return;
          sender.fates(fates);
          feedbackAt = performance.now();
          if (fates.some(({ receivedAt }) => receivedAt !== null)) heard();
        },
        report(kind, { fractionLost }, roundTrip) {
          if (mine !== peer) return;
          if (kind === 'video' && performance.now() - feedbackAt > 3000) sender.loss(fractionLost / 256);
          if (roundTrip === null) return;
          sender.roundTrip(roundTrip);
          if (sender.counts().framesSent > 0) heard();
        },
        estimate: (bitsPerSecond) => mine === peer && sender.estimate(bitsPerSecond),
      },
    });
    let feedbackAt = -Infinity;
    if (stale()) return void mine.close();
    peer = mine;
    waiting = after(times.ice, () => publishAnew(`no media connection came about within ${times.ice / 1000} s`));
    const sdp = await mine.offer();
    if (mine !== peer) return;
    signalling.send({ command: 'takeConfiguration', streamId, type: 'offer', sdp });
    for (const message of early.splice(0)) take(message);
  };

  const take = (message: ServerMessage) => {
    const mine = peer;
    if (mine === null) {
      early.push(message);
      return;
    }
    const done =
      message.command === 'takeConfiguration'
        ? message.type === 'answer' && message.sdp
          ? mine.answer(message.sdp)
          : null
        : mine.candidate(message.candidate ?? '', message.label ?? 0, message.id ?? String(message.label ?? 0));
    done?.catch((error: unknown) => {
      log.warn('push can not take what the target said', { command: message.command, error });
      if (mine === peer && message.command === 'takeConfiguration') publishAnew('its description of the session is no good');
    });
  };

  const notified = (definition: string) => {
    if (definition === 'publish_finished') {
      if (stopping !== null) stopping();
      else if (finishedAnew !== null) finishedAnew();
      else if (published) end(failure('push_ended', 'it ended the stream'));
    } else if (definition === 'server_will_stop') end(failure('push_unavailable', 'it is about to stop'));
    else log.info('push target says', { definition: definition.slice(0, 60) });
  };

  const onMessage = (message: ServerMessage) => {
    const isOther = message.streamId != null && message.streamId !== streamId;
    if (over || isOther) return;
    switch (message.command) {
      case 'start':
        start().catch((error: unknown) => end(failure('push_server_failed', `the media connection could not be set up: ${String(error)}`)));
        return;
      case 'takeConfiguration':
      case 'takeCandidate':
        take(message);
        return;
      case 'notification':
        notified(message.definition ?? '');
        return;
      case 'server_will_stop':
        notified('server_will_stop');
        return;
      case 'error':
        // a stop of what was never published there
        if (stopping !== null) stopping();
        else end(definitionError(message.definition ?? '', host));
        return;
      case 'iceServerConfig':
        serversOfServer?.(serversOf(message));
        return;
      default:
    }
  };

  const open = async (): Promise<void> => {
    if (target.iceServers === undefined) {
      const asked = Promise.withResolvers<readonly IceServer[]>();
      serversOfServer = asked.resolve;
      const patience = after(times.iceServers, () => asked.resolve([]));
      signalling.send({ command: 'getIceServerConfig', streamId });
      ice = await asked.promise;
      clear(patience);
      serversOfServer = null;
    }
    if (stopping === null) publish();
  };

  const reports = setInterval(() => {
    if (peer?.video == null) return;
    peer.report();
    if (performance.now() - heardAt > times.unheard) end(failure('push_no_media', `nothing was heard of the media for ${times.unheard / 1000} s`));
  }, 1000);

  const signalling = connectSignalling({ url: target.url, trust: options.trust, judge, lookup }, times, log, {
    open: () => void open(),
    message: onMessage,
    closed(error) {
      if (stopping !== null) stopping();
      end(error);
    },
  });

  return {
    async stop() {
      if (over) return;
      const said = Promise.withResolvers<void>();
      stopping = said.resolve;
      if (published) {
        signalling.send({ command: 'stop', streamId });
        const patience = setTimeout(() => said.resolve(), times.stop);
        await said.promise;
        clearTimeout(patience);
        signalling.close();
      } else signalling.terminate();
      tidy();
    },
  };
}

/** A TURN server comes in the place of a STUN one. */
function serversOf({ stunServerUri, turnServerUsername, turnServerCredential }: ServerMessage): readonly IceServer[] {
  if (!stunServerUri) return [];
  return [{ urls: stunServerUri, ...(turnServerUsername ? { username: turnServerUsername } : {}), ...(turnServerCredential ? { credential: turnServerCredential } : {}) }];
}
