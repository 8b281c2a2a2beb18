/** What one request says of where it went, and who said it. Each runtime's entry makes these; the rule only reads them. */

/** Who is at the other end of the socket; `address` is null where the runtime does not tell. */
export type Peer = { address: string | null; encrypted: boolean };

/** A header line as it came: the name in the case that was sent, one entry a line. */
export type HeaderLine = readonly [name: string, value: string];

/** What a serverless platform itself says of the external origin; a client can't write it. */
export type PlatformOrigin = {
  scheme: 'http' | 'https';
  authority: string;
  source: string;
  /** Path before ours that the platform takes off, such as a stage: `/prod`. */
  prefix?: string;
};

export type RequestFacts = {
  peer: Peer;
  /** In the order of arrival. A runtime that joins equal names gives one line a name. */
  headers: readonly HeaderLine[];
  /** The request target as sent (`/v1/recordings`, `https://host/path`); null where the runtime does not tell. */
  target: string | null;
  /** Null where there is only a socket. */
  platform: PlatformOrigin | null;
};
