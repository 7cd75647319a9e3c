/**
 * Kafka's default partitioner: the key's murmur2, made positive by clearing the sign bit, modulo the partitions.
 * Equal to the Java client's for every key, so that records of one key land together whoever produced them.
 * @see https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/common/utils/Utils.java
 */

const SEED = 0x9747b28c
const MULTIPLIER = 0x5bd1e995
const SHIFT = 24

/** The 32-bit murmur2 of bytes, signed, with Kafka's seed unless another is given. */
export function murmur2(data: Uint8Array, seed: number = SEED): number {
  const length = data.length
  let hash = seed ^ length
  const words = length >> 2
  for (let word = 0; word < words; word++) {
    const at = word << 2
    let k = byteAt(data, at) | (byteAt(data, at + 1) << 8) | (byteAt(data, at + 2) << 16) | (byteAt(data, at + 3) << 24)
    k = Math.imul(k, MULTIPLIER)
    k ^= k >>> SHIFT
    k = Math.imul(k, MULTIPLIER)
    hash = Math.imul(hash, MULTIPLIER) ^ k
  }
  const tail = length & ~3
  const rest = length & 3
  if (rest === 3) hash ^= byteAt(data, tail + 2) << 16
  if (rest >= 2) hash ^= byteAt(data, tail + 1) << 8
  if (rest >= 1) hash = Math.imul(hash ^ byteAt(data, tail), MULTIPLIER)
  hash ^= hash >>> 13
  hash = Math.imul(hash, MULTIPLIER)
  return hash ^ (hash >>> 15)
}

/** The partition of a record with a key. A key of zero bytes is a key; a null key has no partition of its own. */
export function partitionForKey(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}

function byteAt(data: Uint8Array, index: number): number {
  return data[index] ?? 0
}
