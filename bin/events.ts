/** Server-sent events, as an async iterable. */
export type ServerEvent = {
  type: string;
  data: Record<string, unknown>;
  /** To resume behind; not there where the event has none. */
  id?: string;
};

/** Ends with the stream. @param headers of the request, such as an API key's @throws {Error} where the server does not answer with events; the signal's reason */
export async function* readEvents(url: string, signal?: AbortSignal, headers: Record<string, string> = {}): AsyncGenerator<ServerEvent> {
  const response = await fetch(url, { headers: { accept: 'text/event-stream', ...headers }, ...(signal === undefined ? {} : { signal }) });
  if (!response.ok || response.body === null) throw new Error(`${url} answered ${response.status}`);
  yield* parseEvents(response.body.pipeThrough(new TextDecoderStream()));
}

/** Events of a stream of text, wherever it is cut. */
export async function* parseEvents(chunks: AsyncIterable<string>): AsyncGenerator<ServerEvent> {
  let buffer = '';
  for await (const chunk of chunks) {
    buffer += chunk;
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop() ?? '';
    for (const block of blocks) {
      const fields = new Map(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]));
      const data = fields.get('data');
      const id = fields.get('id');
      if (data !== undefined) {
        yield { type: fields.get('event') ?? 'message', data: JSON.parse(data) as ServerEvent['data'], ...(id === undefined ? {} : { id }) };
      }
    }
  }
}
