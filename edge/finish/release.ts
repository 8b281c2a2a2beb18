/**
 * Gives memory back at once that nobody reads any more: the collector of garbage lets some 64 MB of bytes gather first, which
 * more than doubles what joining needs. Bytes that share their buffer with others stay.
 */
export function release(bytes: Uint8Array): void {
  if (bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength) bytes.buffer.transfer(0);
}
