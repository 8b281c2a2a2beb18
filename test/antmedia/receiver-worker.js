// Sees every encoded frame on its way to the decoder, which gets it unchanged: what a receiver asks its sender for stays as it is.

let socket;
const transformers = new Map();

onmessage = async ({ data }) => {
  if (data.url) {
    socket = new WebSocket(data.url);
    socket.binaryType = 'arraybuffer';
  } else if (data.flush !== undefined) {
    socket.send(JSON.stringify({ event: 'flushed', flush: data.flush }));
  } else if (data.keyFrame !== undefined) {
    const transformer = transformers.get(data.keyFrame);
    let error = transformer ? null : 'there is no video';
    await transformer?.sendKeyFrameRequest().catch((reason) => (error = String(reason)));
    socket.send(JSON.stringify({ event: 'asked', peer: data.keyFrame, error }));
  }
};

onrtctransform = ({ transformer }) => {
  const { peer, kind } = transformer.options;
  if (kind === 'video') transformers.set(peer, transformer);
  const encoder = new TextEncoder();
  const look = new TransformStream({
    transform(frame, controller) {
      const { rtpTimestamp, synchronizationSource, payloadType, mimeType, width, height, receiveTime, captureTime } = frame.getMetadata();
      const head = encoder.encode(
        JSON.stringify({
          peer,
          kind,
          rtpTimestamp: rtpTimestamp ?? frame.timestamp,
          source: synchronizationSource,
          payloadType,
          mimeType,
          width,
          height,
          receiveTime,
          captureTime,
          key: kind === 'video' && frame.type === 'key',
          arrived: performance.timeOrigin + performance.now(),
        }),
      );
      const message = new Uint8Array(4 + head.length + frame.data.byteLength);
      new DataView(message.buffer).setUint32(0, head.length);
      message.set(head, 4);
      message.set(new Uint8Array(frame.data), 4 + head.length);
      socket.send(message);
      controller.enqueue(frame);
    },
  });
  transformer.readable.pipeThrough(look).pipeTo(transformer.writable).catch(() => undefined);
};
