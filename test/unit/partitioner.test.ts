import { Partitioners } from 'kafkajs'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { murmur2, partitionForKey } from '../../src/partitioner.ts'
import { bytesOf } from '../../src/record.ts'

/** Where another Kafka client, compatible with the Java one, puts a key. */
const kafkajs = Partitioners.DefaultPartitioner()

function partitionByKafkajs(key: Uint8Array, partitions: number): number {
  const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
    partitionErrorCode: 0,
    partitionId,
    leader: 0,
    replicas: [],
    isr: [],
  }))
  return kafkajs({ topic: 'golden', partitionMetadata, message: { key: Buffer.from(key), value: null } })
}

/** A thousand keys: numbers, names, ids, unicode, none at all, and bytes that are no text. */
const keys: Uint8Array[] = Array.from({ length: 1000 }, (_, index) => {
  if (index % 5 === 0) return bytesOf(`order-${index}`)
  if (index % 5 === 1) return bytesOf('é漢😀'.repeat(index % 13))
  if (index % 5 === 2) return Uint8Array.from({ length: index % 67 }, (_, at) => (at * 31 + index) & 0xff)
  if (index % 5 === 3) return bytesOf(`App\\Http\\Controllers\\C${index}`)
  return bytesOf(String(index * 7919))
})

describe('partitioner', () => {
  test.each([1, 2, 3, 7, 12, 100])(
    'puts a thousand keys where another Kafka client puts them, over %i partitions',
    (n) => {
      const ours = keys.map((key) => partitionForKey(key, n))

      expect(ours).toEqual(keys.map((key) => partitionByKafkajs(key, n)))
    },
  )

  test.each([
    ['21', -973_932_308],
    ['foobar', -790_332_482],
    ['a-little-bit-long-string', -985_981_536],
    ['a-little-bit-longer-string', -1_486_304_829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58_897_971],
  ])('hashes %s as the Java client does', (text, hash) => {
    expect(murmur2(bytesOf(text))).toBe(hash)
  })

  test('answers a partition that exists, the same one every time, for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.integer({ min: 1, max: 1000 }), (key, partitions) => {
        const partition = partitionForKey(key, partitions)

        expect(partition).toBeGreaterThanOrEqual(0)
        expect(partition).toBeLessThan(partitions)
        expect(partitionForKey(key.slice(), partitions)).toBe(partition)
      }),
    )
  })
})
