// The receiving peers, one RTCPeerConnection each. Told what to do over a WebSocket; says what happens over the same one.

const socket = new WebSocket(`ws://${location.host}/page`);
const worker = new Worker('/worker.js');
worker.postMessage({ url: `ws://${location.host}/worker` });
const peers = new Map();
const say = (message) => socket.send(JSON.stringify(message));

const commands = {
  open({ peer }) {
    const connection = new RTCPeerConnection();
    peers.set(peer, connection);
    connection.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) {
        say({ event: 'candidate', peer, candidate: candidate.candidate, label: candidate.sdpMLineIndex, id: candidate.sdpMid });
      }
    };
    connection.oniceconnectionstatechange = () => say({ event: 'ice', peer, state: connection.iceConnectionState });
    connection.onconnectionstatechange = () => say({ event: 'connection', peer, state: connection.connectionState });
    connection.ontrack = ({ receiver, track, streams }) => {
      receiver.transform = new RTCRtpScriptTransform(worker, { peer, kind: track.kind });
      say({ event: 'track', peer, kind: track.kind, streams: streams.map(({ id }) => id) });
    };
  },
  async offer({ peer, sdp, type }) {
    const connection = peers.get(peer);
    await connection.setRemoteDescription({ type, sdp });
    const answer = await connection.createAnswer();
    const set = connection.setLocalDescription(answer);
    say({ event: 'answer', peer, sdp: answer.sdp });
    await set;
  },
  close({ peer }) {
    peers.get(peer)?.close();
    peers.delete(peer);
  },
  async stats({ peer }) {
    return [...((await peers.get(peer)?.getStats())?.values() ?? [])];
  },
  toWorker: (message) => worker.postMessage(message),
};

socket.onmessage = async ({ data }) => {
  const { id, command, ...rest } = JSON.parse(data);
  try {
    say({ id, result: (await commands[command](rest)) ?? null });
  } catch (error) {
    say({ id, error: String(error) });
  }
};
