/** @returns what the promise comes to, unless the signal is aborted first: then what it was aborted with is thrown. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason as Error);
  // nobody asks any more what it came to
  promise.catch(() => undefined);
  if (signal.aborted) throw signal.reason as Error;
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
