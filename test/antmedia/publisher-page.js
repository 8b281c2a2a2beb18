// Publishes the test pages' picture and beeps as Ant Media's own SDK does. Run in a page of theirs.
globalThis.publish = async (url, streamId) => {
  const load = (name) => import(`/${name}.js`);
  const [{ canvasPicture }, { createBeeper }, { startScene }] = await Promise.all([load('picture'), load('beeper'), load('scene')]);
  const published = { messages: [], socket: new WebSocket(url), stats: async () => ({}) };
  globalThis.published = published;
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
  const media = new MediaStream(canvas.captureStream(30).getVideoTracks());
  const toStream = (context) => {
    const node = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    media.addTrack(node.stream.getAudioTracks()[0]);
    const silence = new ConstantSourceNode(context, { offset: 0 });
    silence.connect(node);
    silence.start();
    return node;
  };
  startScene({ draw: canvasPicture(canvas), beeper: () => createBeeper(toStream), fps: 30 });

  const send = (message) => published.socket.send(JSON.stringify(message));
  let connection;
  const early = [];
  const on = {
    async start() {
      connection = new RTCPeerConnection();
      for (const track of media.getTracks()) {
        // a blurred barcode reads as nothing: frames are given up rather than size
        if (track.kind === 'video') track.contentHint = 'detail';
        connection.addTrack(track, media);
      }
      const video = connection.getTransceivers().find(({ sender }) => sender.track?.kind === 'video');
      const codecs = RTCRtpSender.getCapabilities('video')?.codecs ?? [];
      video?.setCodecPreferences(codecs.filter(({ mimeType, sdpFmtpLine }) => mimeType === 'video/H264' && sdpFmtpLine?.includes('packetization-mode=1')));
      connection.onicecandidate = ({ candidate }) => {
        if (candidate) send({ command: 'takeCandidate', streamId, label: candidate.sdpMLineIndex, id: candidate.sdpMid, candidate: candidate.candidate });
      };
      published.stats = async () => [...(await connection.getStats()).values()].find((each) => each.type === 'outbound-rtp' && each.kind === 'video');
      await connection.setLocalDescription();
      send({ command: 'takeConfiguration', streamId, type: 'offer', sdp: connection.localDescription?.sdp });
    },
    async takeConfiguration({ sdp, type }) {
      await connection.setRemoteDescription({ sdp, type });
      for (const candidate of early.splice(0)) await connection.addIceCandidate(candidate);
    },
    async takeCandidate({ label, id, candidate }) {
      const init = { candidate, sdpMLineIndex: label, sdpMid: id };
      if (connection.remoteDescription) await connection.addIceCandidate(init);
      else early.push(init);
    },
  };
  published.socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    published.messages.push(message);
    void on[message.command]?.(message);
  };
  await new Promise((resolve, reject) => {
    published.socket.onopen = resolve;
    published.socket.onerror = () => reject(new Error('the socket did not open'));
  });
  send({ command: 'publish', streamId, token: '', subscriberId: '', subscriberCode: '', streamName: '', mainTrack: '', video: true, audio: true, metaData: '', role: '' });
};
