/** One run of the in-page script in one execution context: puts it there, reads its messages, asks it for its pulse. */
import { randomBytes } from 'node:crypto';
import { ProtocolError, type CDPSession } from 'puppeteer-core';
import { tagMatrix } from '../media/avc-colour.ts';
import { monotonicMicros } from '../media/clock.ts';
import { avcCodec, type CaptureCounts, type CaptureEvents, type CapturePulse, type CaptureSettings } from './capture.ts';
import { captureStream, type CaptureHandle, type CaptureStreamOptions } from './in-page/capture-stream.ts';

export type StreamSession = {
  /** Calls a method of the in-page handle. Rejects where the document is gone. */
  call<M extends keyof CaptureHandle>(method: M, ...args: Parameters<CaptureHandle[M]>): Promise<Awaited<ReturnType<CaptureHandle[M]>>>;
  counts(): Promise<CapturePulse>;
  /** JPEG of the frame that is held; null where none came yet. */
  snapshot(): Promise<Uint8Array | null>;
  /** Resolves with the last counts when the script has sent its last message. */
  stop(): Promise<CaptureCounts>;
};

export type StreamSessionOptions = Pick<CaptureStreamOptions, 'source' | 'active' | 'audio' | 'tapEvent' | 'stir'> & {
  /** Isolated world that the binding is for; null for the page's own. */
  world: string | null;
  executionContextId: number;
};

/** The in-page script could not capture in this document; the message says why. */
export class CaptureRefused extends Error {
  override readonly name = 'CaptureRefused';
}

/**
 * Whether a capture that could not begin may with the next attempt: a busy machine was too slow for the browser's ten seconds,
 * or the document went, or its process.
 */
export const mayPass = (cause: unknown): boolean =>
  cause instanceof ProtocolError || (cause instanceof CaptureRefused && /: (AbortError|NotReadableError): /.test(cause.message));

/** @throws {CaptureRefused} */
export async function startStreamSession(
  session: CDPSession,
  settings: CaptureSettings,
  events: CaptureEvents,
  options: StreamSessionOptions,
): Promise<StreamSession> {
  const secret = randomBytes(8).toString('hex');
  const binding = `send${secret}`;
  const handle = `capture${secret}`;
  let received = 0;
  let drained: () => void = () => undefined;
  const whenDrained = new Promise<void>((resolve) => {
    drained = resolve;
  });

  const onMessage = (event: { name: string; payload: string; executionContextId: number }) => {
    if (event.name !== binding || event.executionContextId !== options.executionContextId) return;
    received += event.payload.length;
    if (event.payload === 'd') {
      session.off('Runtime.bindingCalled', onMessage);
      drained();
    } else dispatch(event.payload, events);
  };
  session.on('Runtime.bindingCalled', onMessage);
  await session.send('Runtime.addBinding', {
    name: binding,
    ...(options.world === null ? {} : { executionContextName: options.world }),
  });

  const script: CaptureStreamOptions = {
    binding,
    handle,
    width: settings.width,
    height: settings.height,
    frameRate: settings.frameRate,
    bitrate: settings.videoBitrate,
    codec: avcCodec(settings.width, settings.height, settings.frameRate),
    audio: options.audio && settings.audio,
    tapEvent: settings.audio ? options.tapEvent : null,
    keyFrameSeconds: settings.keyFrameSeconds,
    firstKeyFrameSeconds: settings.firstKeyFrameSeconds,
    source: options.source,
    active: options.active,
    stir: options.stir,
    calibrate: settings.calibrate,
    clockBase: 0,
  };
  const run = async (declaration: string, args: readonly unknown[], userGesture = false): Promise<unknown> => {
    const { result, exceptionDetails } = await session.send('Runtime.callFunctionOn', {
      functionDeclaration: declaration,
      executionContextId: options.executionContextId,
      arguments: args.map((value) => ({ value })),
      awaitPromise: true,
      returnByValue: true,
      userGesture,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value as unknown;
  };

  script.clockBase = await clockBase(() => run('function() { return performance.now(); }', []));
  // getDisplayMedia asks for a user's gesture; a page that records itself could use one too, and has no other
  const refused = await run(captureStream.toString(), [script], true);
  if (refused !== '') {
    session.off('Runtime.bindingCalled', onMessage);
    throw new CaptureRefused(String(refused));
  }
  const call = async (method: string, ...args: unknown[]) =>
    run(`function(name, ...rest) { return globalThis['${handle}'][name](...rest); }`, [method, ...args]);
  return {
    call: call as StreamSession['call'],
    counts: () => call('pulse', received) as Promise<CapturePulse>,
    async snapshot() {
      const jpeg = (await call('snapshot')) as string;
      return jpeg === '' ? null : Buffer.from(jpeg, 'base64');
    },
    async stop() {
      const last = (await call('stop')) as CaptureCounts;
      await whenDrained;
      return last;
    },
  };
}

/** Monotonic microseconds at which a document's performance.now() was 0: the quickest of a few questions is the best answer. */
async function clockBase(ask: () => Promise<unknown>): Promise<number> {
  let best = { took: Infinity, base: 0 };
  for (let i = 0; i < 5; i += 1) {
    const before = monotonicMicros();
    const now = Number(await ask()) * 1000;
    const after = monotonicMicros();
    if (after - before < best.took) best = { took: after - before, base: Math.round((before + after) / 2 - now) };
  }
  return best.base;
}

/** What comes is checked as it is read: a page can't reach the binding, but a broken browser could. */
function dispatch(message: string, events: CaptureEvents): void {
  const parts = message.slice(1).split(',');
  switch (message[0]) {
    case 'v': {
      const [timestamp, key, description, data] = parts;
      if (!data) return;
      events.video({
        timestamp: Number(timestamp),
        key: key === '1',
        data: Buffer.from(data, 'base64'),
        description: description ? tagMatrix(Buffer.from(description, 'base64')) : null,
      });
      return;
    }
    case 'a': {
      const [timestamp, rate, frames, data] = parts;
      const bytes = data ? Buffer.from(data, 'base64') : null;
      events.audio({
        timestamp: Number(timestamp),
        rate: Number(rate),
        frames: Number(frames),
        samples: bytes && aligned(bytes),
      });
      return;
    }
    case 's':
      events.moving?.();
      return;
    case 'f':
      events.flash?.(Number(parts[0]));
      return;
    case 'x':
      events.failed(new Error('the tab stopped giving pictures'));
      return;
    case 'e':
      events.failed(new Error(`the encoder failed: ${parts.join(',')}`));
  }
}

/** 16-bit view of the bytes; copies only where a pooled buffer begins at an odd place. */
const aligned = (bytes: Buffer): Int16Array =>
  bytes.byteOffset % 2 === 0
    ? new Int16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1)
    : new Int16Array(new Uint8Array(bytes).buffer, 0, bytes.length >> 1);
