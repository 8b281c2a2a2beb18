/**
 * Runs in the page's own world before its scripts: mixes what the page plays into one stream, for browsers that can't
 * capture a tab's sound. It holds no secret and no binding; a page that meddles with it spoils its own sound.
 *
 * Heard: WebAudio that reaches a context's destination, media elements, streams played in elements (WebRTC), in the page
 * and in its same-origin frames. Not heard: cross-origin media without CORS, cross-origin frames.
 *
 * Injected as text: it must not refer to anything outside itself.
 */
export function audioTap(tapEvent: string): void {
  if (typeof AudioContext === 'undefined') return;
  const nativeConnect = AudioNode.prototype.connect as (this: AudioNode, ...rest: unknown[]) => unknown;
  const nativeDisconnect = AudioNode.prototype.disconnect as (this: AudioNode, ...rest: unknown[]) => unknown;
  const nativePlay = HTMLMediaElement.prototype.play;
  const NativeContext = AudioContext;
  let mixer: { context: AudioContext; output: MediaStreamAudioDestinationNode; element: HTMLAudioElement } | null = null;

  const announce = () => {
    if (mixer === null) return;
    let target: Document = document;
    let event = tapEvent;
    try {
      if (window.top !== null && window.top !== window) {
        target = window.top.document;
        event = `${tapEvent}-frame`;
      }
    } catch {
      return; // a cross-origin frame can't hand its sound to the page
    }
    target.dispatchEvent(new FocusEvent(event, { relatedTarget: mixer.element }));
  };

  /** Made when the first sound comes: a silent page has no audio thread to pay for. */
  const mix = () => {
    if (mixer === null) {
      const context = new NativeContext({ sampleRate: 48_000, latencyHint: 'interactive' });
      const output = context.createMediaStreamDestination();
      // a destination without a running source sends nothing at all: this one is silent and keeps it going
      const keepAlive = context.createConstantSource();
      keepAlive.offset.value = 0;
      nativeConnect.call(keepAlive, output);
      keepAlive.start();
      const element = document.createElement('audio');
      element.srcObject = output.stream;
      mixer = { context, output, element };
      announce();
    }
    return mixer;
  };
  const addStream = (stream: MediaStream): (() => void) => {
    const { context, output } = mix();
    const source = context.createMediaStreamSource(stream);
    nativeConnect.call(source, output);
    return () => nativeDisconnect.call(source);
  };

  // WebAudio: what is connected to a context's destination is connected to a tap beside it
  const taps = new WeakMap<BaseAudioContext, MediaStreamAudioDestinationNode>();
  const tapOf = (context: AudioContext): MediaStreamAudioDestinationNode => {
    let tap = taps.get(context);
    if (tap === undefined) {
      tap = context.createMediaStreamDestination();
      taps.set(context, tap);
      addStream(tap.stream);
    }
    return tap;
  };
  const isOutput = (target: unknown): target is AudioDestinationNode =>
    target instanceof AudioDestinationNode && target.context instanceof NativeContext;
  AudioNode.prototype.connect = function connect(this: AudioNode, ...rest: unknown[]) {
    const result = nativeConnect.apply(this, rest);
    const [target, output] = rest;
    if (isOutput(target) && target.context !== mixer?.context) {
      try {
        nativeConnect.call(this, tapOf(target.context as AudioContext), ...(output === undefined ? [] : [output]));
      } catch {
        // the page's own graph must not notice
      }
    }
    return result;
  } as AudioNode['connect'];
  AudioNode.prototype.disconnect = function disconnect(this: AudioNode, ...rest: unknown[]) {
    const result = nativeDisconnect.apply(this, rest);
    const [target, output] = rest;
    const tap = isOutput(target) ? taps.get(target.context) : undefined;
    if (tap !== undefined) {
      try {
        nativeDisconnect.call(this, tap, ...(output === undefined ? [] : [output]));
      } catch {
        // it was not connected
      }
    }
    return result;
  } as AudioNode['disconnect'];

  // Media elements, in the document or not
  const inGraph = new WeakSet<HTMLMediaElement>();
  const played = new WeakMap<HTMLMediaElement, { source: unknown; drop: () => void }>();
  const listen = (element: HTMLMediaElement) => {
    if (inGraph.has(element) || element === mixer?.element) return;
    const source = element.srcObject ?? element.currentSrc;
    if (played.get(element)?.source === source) return;
    played.get(element)?.drop();
    try {
      const stream =
        element.srcObject instanceof MediaStream
          ? new MediaStream(element.srcObject.getAudioTracks())
          : (element as HTMLMediaElement & { captureStream(): MediaStream }).captureStream();
      const sound = new MediaStream(stream.getAudioTracks());
      if (sound.getAudioTracks().length === 0) return;
      const { context, output } = mix();
      const node = context.createMediaStreamSource(sound);
      const volume = context.createGain();
      const follow = () => {
        volume.gain.value = element.muted ? 0 : element.volume;
      };
      follow();
      element.addEventListener('volumechange', follow);
      nativeConnect.call(nativeConnect.call(node, volume) as AudioNode, output);
      played.set(element, {
        source,
        drop() {
          element.removeEventListener('volumechange', follow);
          nativeDisconnect.call(node);
          nativeDisconnect.call(volume);
        },
      });
    } catch {
      // cross-origin media without CORS is not ours to hear
    }
  };
  const watched = new WeakSet<HTMLMediaElement>();
  const watch = (element: HTMLMediaElement) => {
    if (watched.has(element)) return;
    watched.add(element);
    element.addEventListener('playing', () => listen(element));
    if (!element.paused && element.readyState >= 3) listen(element);
  };
  HTMLMediaElement.prototype.play = function play(this: HTMLMediaElement) {
    watch(this);
    return nativePlay.call(this);
  };
  document.addEventListener(
    'playing',
    (event) => {
      if (!(event.target instanceof HTMLMediaElement)) return;
      watch(event.target);
      listen(event.target);
    },
    true,
  );
  // an element that feeds a graph is heard there, and would be heard twice
  const nativeSource = NativeContext.prototype.createMediaElementSource;
  NativeContext.prototype.createMediaElementSource = function createMediaElementSource(this: AudioContext, element: HTMLMediaElement) {
    inGraph.add(element);
    played.get(element)?.drop();
    return nativeSource.call(this, element);
  };

  document.addEventListener(`${tapEvent}-ask`, announce);
  // same-origin frames hand their mix to the page's
  document.addEventListener(`${tapEvent}-frame`, (event) => {
    const element = (event as FocusEvent).relatedTarget as HTMLAudioElement | null;
    if (element?.srcObject) addStream(element.srcObject as MediaStream);
  });
}
