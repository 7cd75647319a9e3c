/**
 * The dead-letter store fails for a minute: it is unavailable, does not answer, or stores without saying so. No offset is
 * committed past a record whose letter is not durable; afterwards there is one letter for each.
 */
import type { Broker } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { DeadLetterStoreError } from '../../src/errors.ts'
import { atOf } from '../history/noted-broker.ts'
import type { Fate } from '../run-sim/records.ts'
import type { Scenario } from './scenario.ts'
import { GROUP, World } from './world.ts'

const OUTAGE_MS = 60_000
const OUTAGES = 100
const kinds = ['refused', 'no answer', 'stored without a word'] as const
const stores: readonly ((broker: Broker) => DeadLetterStore)[] = [
  () => memoryDeadLetters(),
  (broker) => topicDeadLetters({ broker, topic: 'letters' }),
]
const POISON = 5

/** A store that is down. */
export const storeOutages: Scenario = {
  promise: 'While the dead-letter store fails no offset passes a record without a letter; afterwards each has one.',
  plays: { full: kinds.length * stores.length * OUTAGES, quick: kinds.length * stores.length },
  needs: {
    ...Object.fromEntries(kinds.map((kind) => [`outages: ${kind}`, stores.length * OUTAGES])),
    'partitions that waited': OUTAGES,
  },
  async play(seed, index, bugs) {
    const kind = kinds[index % kinds.length] ?? 'refused'
    const outage: { until?: number } = {}
    let failedPuts = 0
    const world = new World({
      seed,
      partitions: 2,
      ordering: index % 4 === 3 ? 'key' : 'partition',
      openLetters:
        stores[Math.floor(index / kinds.length) % stores.length] ?? ((): DeadLetterStore => memoryDeadLetters()),
      consumer: { maxPollRecords: 10, maxPollWaitMs: 200, claimTtlMs: 5_000, callTimeoutMs: 1_000 },
      putting: async (put) => {
        outage.until ??= world.time.monotonic() + OUTAGE_MS
        if (world.time.monotonic() >= outage.until) return await put()
        failedPuts += 1
        if (kind === 'refused') throw new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', '503')
        // Some are stored, and nobody hears of it.
        if (kind === 'stored without a word' && world.random() < 0.5) await put()
        return await new Promise<never>(() => {})
      },
      bugs,
    })
    await world.open()
    await world.produce(fatesOf(world))
    while (outage.until === undefined || world.time.monotonic() < outage.until) {
      await world.finish(world.start({ runMs: 10_000 }))
      for (const at of (await world.broker.committed(GROUP)).map(atOf)) {
        if (!world.witness.isBehind(at))
          world.witness.complain(`${at.place}@${at.offset} is committed without a letter`)
      }
      await world.time.advance(1_000)
    }
    if (failedPuts > 0) world.count(`outages: ${kind}`)
    world.count('failed puts', failedPuts)
    if (!(await world.isDone())) world.count('partitions that waited')
    await world.drain({ runMs: 20_000 })
    await judgeLetters(world)
    return await world.judge()
  },
}

function fatesOf(world: World): Fate[] {
  const fates: Fate[] = Array.from({ length: 40 }, () => 'good')
  const kinds: readonly Fate[] = ['throws', 'rejects', 'not JSON', 'no route', 'wrong shape']
  for (let index = 0; index < POISON; index++) fates[world.below(fates.length)] = kinds[index] ?? 'throws'
  return fates
}

/** One letter for each record that cannot be handled, and no other. */
async function judgeLetters(world: World): Promise<void> {
  const items = await world.allLetters()
  const places = items.map(({ record }) => atOf(record)).map(({ place, offset }) => `${place}@${offset}`)
  if (new Set(places).size !== places.length) world.witness.complain(`a record has two letters: ${places.join(', ')}`)
  const bad = items.filter(({ record }) => ['good', 'tombstone'].includes(world.fateOf(record)))
  if (bad.length > 0) world.witness.complain(`${bad.length} good records became dead letters`)
  world.count('dead letters', places.length)
}
