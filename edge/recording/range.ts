/** Range requests (RFC 9110, 14): one range of bytes; several at once are answered with the whole, as is allowed. */
import type { ByteRange } from '../storage/storage.ts';

/**
 * @returns the bytes to send, `whole` where the header is missing or may be ignored, `unsatisfiable` where it lies outside
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'whole' | 'unsatisfiable' {
  if (header === undefined) return 'whole';
  const match = /^bytes=(?:(\d+)-(\d*)|-(\d+))$/i.exec(header.replaceAll(/\s/g, ''));
  // a unit or a form that isn't known is ignored (14.2)
  if (!match) return 'whole';
  const [, first, last, suffix] = match;
  if (suffix !== undefined) {
    const length = Math.min(Number(suffix), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size };
  }
  const start = Number(first);
  const end = last === undefined || last === '' ? size : Math.min(Number(last) + 1, size);
  if (last !== undefined && last !== '' && Number(last) < start) return 'whole';
  return start >= size ? 'unsatisfiable' : { start, end };
}
