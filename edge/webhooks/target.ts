/** A webhook's URL and secret, as they rest in Redis: sealed, and of no use in the place of what a worker unseals. */
import { webhook, type Webhook } from '../../shared/recording.ts';
import { seal, unseal } from '../../shared/token.ts';

const sealedFor = (recordingId: string): string => `${recordingId}:webhook`;

/** @param keys of SECRETS_KEY, the first seals */
export const sealTarget = (keys: readonly string[], recordingId: string, { url, secret }: Webhook): Promise<string> =>
  seal(keys, sealedFor(recordingId), { url, secret });

/** @throws {TypeError} where no key opens it */
export const openTarget = async (keys: readonly string[], recordingId: string, sealed: string): Promise<Webhook> =>
  webhook.parse(await unseal(keys, sealedFor(recordingId), sealed));
