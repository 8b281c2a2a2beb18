/** How callers show who they are, in the words of OpenAPI. */

export const API_KEY = 'apiKey';
export const LINK = 'link';

export const securitySchemes = {
  [API_KEY]: {
    type: 'http' as const,
    scheme: 'bearer',
    bearerFormat: 'tbr_...',
    description:
      'An API key; scopes: `record` makes recordings and controls them, `read` sees them, `admin` does both with all of everybody\'s. ' +
      'Another key\'s recordings are as good as none. Where a deployment has no keys it serves its own machine alone.',
  },
  [LINK]: { type: 'apiKey' as const, in: 'query' as const, name: 'token', description: 'Of one recording, read-only, for a day: as it stands in its links' },
};
