/**
 * The results of work on each item, in their order; so many are worked on at a time, and no more are kept.
 *
 * @throws the first that failed, in that order
 */
export async function* ahead<T, R>(items: Iterable<T>, atOnce: number, work: (item: T) => Promise<R>): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  for (const item of items) {
    const result = work(item);
    // it is awaited in its turn
    result.catch(() => undefined);
    if (running.push(result) >= atOnce) yield await running.shift()!;
  }
  for (const result of running) yield await result;
}
