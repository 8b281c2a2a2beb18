/**
 * Runs inside the browser: turns a MediaStream into encoded pictures and PCM, and sends them through a CDP binding.
 *
 * It is injected as text, so it must not refer to anything outside itself. It runs in an isolated world (`self`) or on the
 * controller page (`tab`); the page can reach neither it nor its binding.
 */

export type CaptureStreamOptions = {
  /** Name of the binding that takes messages; of the object that `pulse` and `stop` are called on. */
  binding: string;
  handle: string;
  width: number;
  height: number;
  frameRate: number;
  /** Bits per second. */
  bitrate: number;
  /** WebCodecs codec string of an H.264 profile and level. */
  codec: string;
  /** Capture the stream's own sound (`tab`). */
  audio: boolean;
  /** Name of the event by which the page's audio tap hands over its stream (`self`); null for none. */
  tapEvent: string | null;
  /** Seconds between key frames, and up to the second one: the first segment is stored sooner. */
  keyFrameSeconds: number;
  firstKeyFrameSeconds: number;
  /** Monotonic microseconds at which this document's performance.now() was 0. */
  clockBase: number;
  /** Where pictures come from: the tab that the browser lets us capture, or JPEGs that are handed in. */
  source: 'display' | 'images';
  /** Name of the function in this world that stirs the page; null where the page is another one, which the recorder stirs. */
  stir: string | null;
  /** Encode from the first frame on, or wait for `begin`. */
  active: boolean;
  /** Tell when the top left corner turns white, instead of encoding. */
  calibrate: boolean;
};

/** What `pulse` answers. All counts are since the start. */
export type CapturePulse = {
  /**
   * Frames that came, that were encoded (repeats included), that were repeats, and that were dropped: because a queue was
   * full, or because this script was kept from taking them.
   */
  frames: number;
  encoded: number;
  repeated: number;
  dropped: number;
  /** Whether the picture is black all over; null where there is none. */
  dark: boolean | null;
};

export type CaptureHandle = {
  /** From now on frames are encoded: the one that is held first, after a rest a fresh one. */
  begin(): void;
  /**
   * Lets the source rest, which then draws nothing for us. Resolves once all that is from before `at` has been sent.
   * @param at microseconds on the monotonic clock.
   */
  rest(at: number): Promise<void>;
  /** Other terms for what is encoded from now on: bits per second; fewer frames a second than the page gives are left out. */
  setRate(bitrate: number, frameRate: number): void;
  /** The next picture is a key frame; a still page's comes at once. */
  keyFrame(): void;
  /** The frame that is held, as a JPEG in base64; empty where none came yet. */
  snapshot(): Promise<string>;
  /** Takes a picture from outside (`images`). @param timestamp microseconds on the monotonic clock. */
  image(jpeg: string, timestamp: number): Promise<void>;
  /** @param received bytes of messages that arrived, which bounds what is under way. */
  pulse(received: number): CapturePulse;
  /** Encodes the last frame once more and sends everything; the last counts. */
  stop(): Promise<CapturePulse>;
};

/** Must be self-contained: see above. */
export async function captureStream(options: CaptureStreamOptions): Promise<string> {
  const scope = globalThis as unknown as Record<string, unknown>;
  const send = scope[options.binding] as (message: string) => void;
  delete scope[options.binding];
  // one after the other: a document may be asked twice where a navigation came in between
  (scope[options.handle] as CaptureHandle | undefined)?.stop().catch(() => undefined);

  /** Messages under way: 8 MB are 20 s of a usual recording. */
  const maxUnreceived = 8_000_000;
  const maxEncoderQueue = 6;
  let sent = 0;
  let received = 0;
  const count = { frames: 0, encoded: 0, repeated: 0, dropped: 0 };
  let stopped = false;

  const post = (message: string) => {
    sent += message.length;
    send(message);
  };
  const base64 = (bytes: Uint8Array): string => {
    if ('toBase64' in bytes) return (bytes as unknown as { toBase64(): string }).toBase64();
    let text = '';
    for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(text);
  };

  // the page may refuse or lack it: the caller goes on to another engine
  let stream = new MediaStream();
  if (options.source === 'display') {
    if (!navigator.mediaDevices?.getDisplayMedia) return 'getDisplayMedia is missing: not a secure context';
    try {
      stream = await navigator.mediaDevices.getDisplayMedia({
        video: { width: options.width, height: options.height, frameRate: options.frameRate, displaySurface: 'browser' },
        audio: options.audio
          ? { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 2 }
          : false,
      });
    } catch (error) {
      return `getDisplayMedia was refused: ${(error as Error).name}: ${(error as Error).message}`;
    }
  }

  const encoder = new VideoEncoder({
    output(chunk, metadata) {
      const bytes = new Uint8Array(chunk.byteLength);
      chunk.copyTo(bytes);
      const description = metadata?.decoderConfig?.description;
      const header = description ? base64(new Uint8Array(description as ArrayBuffer)) : '';
      post(`v${chunk.timestamp},${chunk.type === 'key' ? 1 : 0},${header},${base64(bytes)}`);
    },
    error(error) {
      post(`e${error.message}`);
    },
  });
  const configure = (bitrate: number, framerate: number) =>
    encoder.configure({
      codec: options.codec,
      width: options.width,
      height: options.height,
      bitrate,
      framerate,
      latencyMode: 'realtime',
      avc: { format: 'avc' },
    });
  configure(options.bitrate, options.frameRate);

  const monotonic = () => performance.now() * 1000 + options.clockBase;
  let held: VideoFrame | null = null;
  let lastStamp = -1;
  let lastKey = -Infinity;
  let keys = 0;
  let keyWanted = false;
  const frameMicros = 1e6 / options.frameRate;
  let active = options.active;
  /** Frames from then on are not ours to encode. */
  let until = Infinity;
  /** Microseconds from one frame to the next at least, less what a frame may come early. */
  let apart = 0;

  const encode = (frame: VideoFrame, repeat: boolean) => {
    if (encoder.state !== 'configured') return;
    if (encoder.encodeQueueSize >= maxEncoderQueue || sent - received > maxUnreceived) {
      count.dropped += 1;
      return;
    }
    const due = (keys < 2 ? options.firstKeyFrameSeconds : options.keyFrameSeconds) * 1e6;
    const keyFrame = keyWanted || frame.timestamp - lastKey >= due - frameMicros / 2;
    if (keyFrame) {
      keyWanted = false;
      lastKey = frame.timestamp;
      keys += 1;
    }
    lastStamp = frame.timestamp;
    count.encoded += 1;
    if (repeat) count.repeated += 1;
    encoder.encode(frame, { keyFrame });
  };

  /** Encodes the last frame again, as of now: a still page gives no frames, and its recording must go on. */
  const repeat = () => {
    if (held === null) return;
    const timestamp = Math.round(monotonic());
    if (timestamp <= lastStamp || timestamp >= until) return;
    const again = new VideoFrame(held, { timestamp });
    encode(again, true);
    again.close();
  };

  const flash = { white: false };
  const watchFlash = async (frame: VideoFrame) => {
    const side = 16;
    const pixels = new Uint8Array(frame.allocationSize({ rect: { x: 0, y: 0, width: side, height: side } }));
    const { timestamp } = frame;
    await frame.copyTo(pixels, { rect: { x: 0, y: 0, width: side, height: side } });
    const white = (pixels[side * 8 + 8] ?? 0) > 128;
    if (white && !flash.white) post(`f${timestamp}`);
    flash.white = white;
  };

  // See stir.ts for why and how often.
  let stirred = 0;
  const recent: number[] = [];
  const stirIfMoving = (timestamp: number) => {
    recent.push(timestamp);
    if (recent.length > 6) recent.shift();
    const moving = recent.length === 6 && timestamp - (recent[0] as number) < 600_000;
    stirred = (stirred + 1) % 6;
    if (!moving) return;
    if (options.stir !== null) {
      if (stirred % 3 !== 0) (scope[options.stir] as (() => void) | undefined)?.();
    } else if (stirred === 0) post('s');
  };

  /** Takes the frame over: it is closed here, at the latest when the next one comes. */
  const take = async (frame: VideoFrame) => {
    // pictures that are handed in are decoded side by side: one may overtake another
    if (stopped || (held !== null && frame.timestamp < held.timestamp)) return frame.close();
    count.frames += 1;
    stirIfMoving(frame.timestamp);
    if (options.calibrate) await watchFlash(frame);
    else if (active && frame.timestamp < until && frame.timestamp > lastStamp + apart) encode(frame, false);
    held?.close();
    held = frame;
  };
  /** What is being read, and how to leave off: a track that nobody reads costs the browser nothing. */
  const readers = new Set<{ cancel(): Promise<void> }>();
  let reading = true;
  const readVideo = async (track: MediaStreamTrack) => {
    const reader = new MediaStreamTrackProcessor({ track: track as MediaStreamVideoTrack, maxBufferSize: 4 }).readable.getReader();
    readers.add(reader);
    for (;;) {
      const { value: frame, done } = await reader.read();
      if (done) break;
      await take(frame);
    }
    readers.delete(reader);
    if (!stopped && reading) post('x');
  };
  const [videoTrack] = stream.getVideoTracks();
  if (videoTrack !== undefined) {
    void readVideo(videoTrack);
    videoTrack.addEventListener('ended', () => {
      if (!stopped && !reading) post('x');
    });
  } else if (options.source === 'display') return 'getDisplayMedia gave no picture';
  // a still page gives no first frame either, unless it is stirred
  if (options.stir !== null) (scope[options.stir] as (() => void) | undefined)?.();

  // A page that is still gives no frame to make the key frame of: the last one serves again.
  let keyTimer: ReturnType<typeof setTimeout> | undefined;
  const keepKeys = () => {
    const due = (keys < 2 ? options.firstKeyFrameSeconds : options.keyFrameSeconds) * 1e6;
    const now = monotonic();
    const late = keys === 0 ? -Infinity : now - lastKey - due;
    // a moving page's next frame is the key frame
    if (active && late >= 0 && now - lastStamp > 200_000) repeat();
    keyTimer = setTimeout(keepKeys, late >= -50_000 || late === -Infinity ? 50 : -late / 1000);
  };
  if (!options.calibrate) keepKeys();

  /**
   * AudioData is stamped from the document's own beginning (Chromium 153 and 156, both kinds of track), where VideoFrame is
   * stamped on the machine's clock. Taken as whichever is near to now, in case a version changes that.
   */
  const onClock = (timestamp: number): number => {
    const now = monotonic();
    const near = [timestamp + options.clockBase, timestamp].find((time) => Math.abs(time - now) < 2_000_000);
    return Math.round(near ?? now);
  };
  const flushers = new Set<() => void>();
  /** Up to when there is sound, where any is read. */
  let heardUntil = -Infinity;
  // Sound goes as 16-bit PCM in batches of a tenth of a second; silence only by its length.
  const readAudio = async (track: MediaStreamTrack) => {
    const reader = new MediaStreamTrackProcessor({ track: track as MediaStreamAudioTrack }).readable.getReader();
    readers.add(reader);
    let batch = new Int16Array(0);
    let filled = 0;
    let first = 0;
    let loud = false;
    let rate = 0;
    const flush = () => {
      if (filled === 0) return;
      const samples = loud ? base64(new Uint8Array(batch.buffer, 0, filled * 4)) : '';
      post(`a${first},${rate},${filled},${samples}`);
      filled = 0;
      loud = false;
    };
    flushers.add(flush);
    for (;;) {
      const { value: data, done } = await reader.read();
      if (done || stopped) {
        data?.close();
        break;
      }
      const frames = data.numberOfFrames;
      if (data.sampleRate !== rate) {
        flush();
        rate = data.sampleRate;
        batch = new Int16Array(Math.ceil(rate / 10 + rate / 20) * 2);
      }
      if ((filled + frames) * 2 > batch.length) flush();
      if (frames * 2 > batch.length) batch = new Int16Array(frames * 2);
      if (filled === 0) {
        first = onClock(data.timestamp);
      }
      const target = batch.subarray(filled * 2, (filled + frames) * 2);
      if (data.numberOfChannels === 2) data.copyTo(target, { planeIndex: 0, format: 's16' });
      else {
        const plane = new Int16Array(frames);
        data.copyTo(plane, { planeIndex: 0, format: 's16-planar' });
        for (let i = 0; i < frames; i += 1) target[2 * i] = target[2 * i + 1] = plane[i] ?? 0;
      }
      data.close();
      let peak = 0;
      for (const sample of target) if (sample > peak || -sample > peak) peak = Math.abs(sample);
      if (peak > 0) loud = true;
      filled += frames;
      heardUntil = first + (filled * 1e6) / rate;
      if (filled >= rate / 10) flush();
    }
    if (!stopped) flush();
    flushers.delete(flush);
    readers.delete(reader);
  };
  const audioTracks = stream.getAudioTracks();
  for (const track of audioTracks) void readAudio(track);
  if (options.tapEvent !== null) {
    // the tap lives in the page's world; an element is what both worlds can see, and it holds the tap's stream
    const heard = new Set<string>();
    document.addEventListener(options.tapEvent, (event) => {
      const element = (event as FocusEvent).relatedTarget as HTMLAudioElement | null;
      const track = (element?.srcObject as MediaStream | null | undefined)?.getAudioTracks()[0];
      if (track === undefined || heard.has(track.id) || heard.size >= 1) return;
      heard.add(track.id);
      audioTracks.push(track);
      if (reading) void readAudio(track);
    });
    document.dispatchEvent(new Event(`${options.tapEvent}-ask`));
  }

  const counts = (): CapturePulse => {
    // W3C mediacapture-extensions: frames that were neither delivered nor left out for the frame rate
    const track = (videoTrack as { stats?: { totalFrames: number; deliveredFrames: number; discardedFrames: number } } | undefined)?.stats;
    const missed = track === undefined ? 0 : Math.max(0, track.totalFrames - track.deliveredFrames - track.discardedFrames);
    return { ...count, dropped: count.dropped + missed, dark };
  };

  // Looked at every third time that somebody asks, and only where there is another picture.
  let dark: boolean | null = null;
  let looked = { asked: 0, frames: -1 };
  const canvas = new OffscreenCanvas(64, 36);
  const lookForBlack = () => {
    looked.asked += 1;
    if (held === null || looked.asked % 3 !== 1 || looked.frames === count.frames) return;
    looked.frames = count.frames;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    if (context === null) return;
    // each pixel is the mean of what it stands for: a line of text on black is not black
    context.imageSmoothingQuality = 'medium';
    context.drawImage(held, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    dark = true;
    for (let i = 0; i < data.length && dark; i += 1) dark = i % 4 === 3 || (data[i] as number) <= 4;
  };

  const handle: CaptureHandle = {
    begin() {
      if (active) return;
      active = true;
      until = Infinity;
      if (reading) {
        // what is held may be from before the page was painted; a page that moves will give a frame of its own
        setTimeout(() => {
          if (lastStamp === -1) repeat();
        }, 100);
        return;
      }
      reading = true;
      keys = 0;
      lastKey = -Infinity;
      for (const track of [videoTrack, ...audioTracks]) {
        if (track === undefined || track.readyState !== 'live') continue;
        void (track.kind === 'video' ? readVideo(track) : readAudio(track));
      }
      // the source begins with a picture by itself, or with the next one that changes
      const nudge = (left: number) => {
        if (!active || stopped || keys > 0 || left === 0) return;
        if (options.stir !== null) (scope[options.stir] as (() => void) | undefined)?.();
        else post('s');
        setTimeout(nudge, 250, left - 1);
      };
      setTimeout(nudge, 100, 40);
    },
    async rest(at) {
      until = at;
      // sound is some way behind; a silent page has none
      const sounds = flushers.size > 0;
      for (let waited = 0; sounds && !stopped && heardUntil < at + 40_000 && waited < 500; waited += 20) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      if (stopped) return;
      active = false;
      keyWanted = false;
      reading = false;
      for (const flush of flushers) flush();
      for (const reader of readers) reader.cancel().catch(() => undefined);
      held?.close();
      held = null;
      if (encoder.state === 'configured') await encoder.flush();
    },
    setRate(bitrate, frameRate) {
      // frames come a little early or late
      apart = frameRate < options.frameRate ? 1e6 / frameRate - frameMicros / 2 : 0;
      if (encoder.state === 'configured') configure(bitrate, frameRate);
    },
    keyFrame() {
      if (!active) return;
      keyWanted = true;
      setTimeout(() => {
        if (keyWanted && active && reading) repeat();
      }, 100);
    },
    async snapshot() {
      if (held === null) return '';
      const whole = new OffscreenCanvas(held.displayWidth, held.displayHeight);
      whole.getContext('2d')?.drawImage(held, 0, 0);
      const blob = await whole.convertToBlob({ type: 'image/jpeg', quality: 0.85 });
      return base64(new Uint8Array(await blob.arrayBuffer()));
    },
    async image(jpeg, timestamp) {
      const bytes = Uint8Array.from(atob(jpeg), (char) => char.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([bytes], { type: 'image/jpeg' }));
      const frame = new VideoFrame(picture, { timestamp });
      picture.close();
      await take(frame);
    },
    pulse(bytes) {
      received = bytes;
      lookForBlack();
      return counts();
    },
    async stop() {
      if (stopped) return counts();
      repeat();
      stopped = true;
      clearTimeout(keyTimer);
      for (const flush of flushers) flush();
      const last = counts();
      for (const track of stream.getTracks()) track.stop();
      held?.close();
      held = null;
      if (encoder.state === 'configured') {
        await encoder.flush();
        encoder.close();
      }
      post('d');
      return { ...last, encoded: count.encoded, repeated: count.repeated };
    },
  };
  scope[options.handle] = handle;
  return '';
}
