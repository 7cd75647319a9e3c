/** The log in plain arrays: for tests, for trying things out, and where nothing has to survive. */
import type { StoredBatch } from './batch.ts'
import type { LogStore, PartitionId, StoredIdempotencyKey } from './store.ts'

/** A store that is gone with the process. */
export function memoryStore(): LogStore {
  const ids = new Map<string, PartitionId[]>()
  const batches = new Map<PartitionId, StoredBatch[]>()
  const idempotency = new Map<string, StoredIdempotencyKey>()
  let nextId = 1

  const batchesOf = (partition: PartitionId): StoredBatch[] => batches.get(partition) ?? []

  return {
    // Nothing below can fail half way, so there is nothing to take back. What the engine itself remembers (topics, log
    // ends, committed offsets, groups) is not kept a second time here.
    transaction: (work) => work(),
    topics: () => [],
    partitions: () => [],
    createTopic(description) {
      const created = Array.from({ length: description.partitions }, () => nextId++)
      ids.set(description.topic, created)
      return created
    },
    deleteTopic(topic) {
      for (const id of ids.get(topic) ?? []) batches.delete(id)
      ids.delete(topic)
    },
    append(partition, batch) {
      const list = batches.get(partition)
      const kept = { ...batch, bytes: batch.bytes.slice() }
      if (list === undefined) batches.set(partition, [kept])
      else list.push(kept)
    },
    batches(partition, fromOffset) {
      const list = batchesOf(partition)
      return list.slice(firstIndexFrom(list, fromOffset))
    },
    batchAtTime: (partition, timestampMs) => batchesOf(partition).find((batch) => batch.maxTimestampMs >= timestampMs),
    truncate(partition, logStartOffset) {
      const list = batchesOf(partition)
      list.splice(0, firstIndexFrom(list, logStartOffset))
    },
    committed: () => [],
    putCommitted() {},
    groups: () => [],
    putGroup() {},
    idempotencyKey: (key) => idempotency.get(key),
    putIdempotencyKey(key, stored) {
      idempotency.set(key, stored)
    },
    pruneIdempotencyKeys(nowMs) {
      for (const [key, stored] of idempotency) if (stored.expiresAtMs <= nowMs) idempotency.delete(key)
    },
    close() {
      batches.clear()
    },
  }
}

/** Index of the first batch that ends after an offset; batches are in order. */
function firstIndexFrom(list: readonly StoredBatch[], offset: number): number {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const batch = list[middle]
    if (batch !== undefined && batch.baseOffset + batch.count > offset) high = middle
    else low = middle + 1
  }
  return low
}
