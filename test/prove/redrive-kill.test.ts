/** The judge of redrives bites: with a bug put between a redrive that is killed and its world, it finds what that did. */
import { describe, expect, test } from 'vitest'
import { app, GROUP, REDRIVE_TOPIC, SOURCE } from '../../prove/redrive-kill/app.ts'
import { judgeRedrive } from '../../prove/redrive-kill/judge.ts'
import { idsIn, lettersOf, putAll, recordsIn } from '../../prove/redrive-kill/letters.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import type { ProducerRecord } from '../../src/record.ts'
import { createRedrive } from '../../src/redrive.ts'
import { seeded } from '../support/chaos.ts'
import { FakeClock } from '../support/clock.ts'
import { finish, withCalls } from '../support/consumer.ts'

const LETTERS = 120
const KILLS = 6
const PER_SECOND = 20

interface World {
  readonly name: string
  readonly broker?: (broker: Broker) => Broker
  readonly store?: (store: DeadLetterStore) => DeadLetterStore
  readonly perSecond?: number
  /** Redrives at once. */
  readonly atOnce?: number
  readonly hasKeys?: boolean
}

const sound: readonly World[] = [
  { name: 'with keys' },
  { name: 'without keys', hasKeys: false },
  { name: 'beside a second one, which is refused', hasKeys: false, atOnce: 2 },
]

const bugs: readonly (World & { readonly says: string })[] = [
  {
    name: 'a letter is deleted before its record is durable',
    says: 'lost',
    store: (store) => withStore(store, { list: async (query) => await listAndDelete(store, query) }),
  },
  {
    name: 'a record is acknowledged that is not stored',
    says: 'lost',
    broker: (broker) => producing(broker, (records, call) => (call % 7 === 3 ? undefined : records)),
  },
  {
    name: 'a letter stays',
    says: 'left',
    store: (store) => withStore(store, { delete: async (id) => (id.endsWith('7') ? true : await store.delete(id)) }),
  },
  {
    name: 'a record goes twice each time',
    says: 'twice',
    broker: (broker) => producing(broker, (records) => [...records, ...records]),
  },
  {
    name: 'an empty value for none',
    says: 'changed',
    broker: (broker) =>
      producing(broker, (records) => records.map((one) => ({ ...one, value: one.value ?? new Uint8Array() }))),
  },
  {
    name: 'a header is lost',
    says: 'changed',
    broker: (broker) =>
      producing(broker, (records) => records.map((one) => ({ ...one, headers: (one.headers ?? []).slice(-1) }))),
  },
  {
    name: 'records go into other partitions',
    says: 'changed',
    broker: (broker) => producing(broker, (records) => records.map((one) => ({ ...one, partition: 0 }))),
  },
  {
    name: 'the newest go first',
    says: 'order',
    store: (store) =>
      withStore(store, {
        list: async (query) => {
          const { items } = await store.list({ ...query, limit: 1_000 })
          return { items: items.toReversed() }
        },
      }),
  },
  { name: 'no rate', says: 'rate', perSecond: 2 * PER_SECOND },
  {
    name: 'no lock, and two redrives at once',
    // With keys the second one's records are those of the first.
    says: 'twice',
    atOnce: 2,
    hasKeys: false,
    broker: (broker) => withCalls(broker, { claim: async () => undefined }),
  },
]

describe('the judge of redrives', () => {
  test.each(sound)('has no complaint of a redrive that is as it should be, $name', async (world) => {
    expect((await judged(world)).violations).toEqual([])
  })

  test.each(bugs)('finds that $name: $says', async (bug) => {
    const { violations } = await judged(bug)

    // A bug may break more than one promise.
    expect(violations.map((line) => line.slice(0, line.indexOf(':')))).toContain(bug.says)
  })

  test('counts what comes again where a kill falls between the two halves of a letter', async () => {
    const withKeys = await judged({ name: 'keys' })
    const without = await judged({ name: 'no keys', hasKeys: false })

    expect(withKeys.twice).toBe(0)
    expect(without.twice).toBeGreaterThan(0)
    expect(without.twice).toBeLessThanOrEqual(KILLS)
  })
})

/** A redrive that is killed a few times and then let run to its end, judged by what is stored. */
async function judged(bug: World): Promise<ReturnType<typeof judgeRedrive>> {
  const clock = new FakeClock()
  const broker = memoryBroker({ clock })
  const store = memoryDeadLetters()
  const letters = lettersOf(LETTERS, 2)
  await broker.createTopic({ topic: SOURCE, partitions: 2 })
  await broker.commit({ groupId: GROUP, groupInstanceId: 'i' }, [{ topic: SOURCE, partition: 0, offset: 0 }])
  await putAll(store, letters)
  const random = seeded(7)
  const { hasKeys = true, perSecond = PER_SECOND, atOnce = 1 } = bug
  const redrive = (isAlive: () => boolean): Promise<unknown> => {
    const bugged = { broker: bug.broker?.(broker) ?? broker, store: bug.store?.(store) ?? store }
    const redrives = Array.from({ length: atOnce }, () =>
      createRedrive({
        broker: mortal(bugged.broker, isAlive, hasKeys ? {} : { idempotencyKeys: false }),
        store: mortal(bugged.store, isAlive),
        groupId: GROUP,
        app,
        clock,
        random,
      }),
    )
    // One that is refused has done nothing.
    return Promise.all(redrives.map((one) => one.run({ actor: 'test', perSecond }).catch(() => undefined)))
  }
  for (let kill = 0; kill < KILLS; kill += 1) {
    let calls = Math.floor(random() * 40)
    void redrive(() => (calls -= 1) > 0)
    await clock.advance(2_000)
    calls = 0
    await clock.advance(60_000)
  }
  await finish(
    clock,
    redrive(() => true),
  )
  const bounds = { mostTwice: hasKeys ? 0 : KILLS, perSecond: PER_SECOND, isFinished: true }
  return judgeRedrive({ letters, left: await idsIn(store), back: await recordsIn(broker, REDRIVE_TOPIC) }, bounds)
}

/** From its death on nothing is answered, and every other fatal call has its effect. */
function mortal<T extends Broker | DeadLetterStore>(target: T, isAlive: () => boolean, features: object = {}): T {
  let deaths = 0
  return new Proxy(target, {
    get: (_, name) => {
      const value = Reflect.get(target, name) as unknown
      if (name === 'features') return { ...target.features, ...features }
      if (typeof value !== 'function') return value
      return async (...args: unknown[]) => {
        if (isAlive()) return (await Reflect.apply(value, target, args)) as unknown
        if ((deaths += 1) === 1 && name === 'produce') await Reflect.apply(value, target, args)
        return await new Promise(() => undefined)
      }
    },
  })
}

function withStore(store: DeadLetterStore, replaced: Partial<DeadLetterStore>): DeadLetterStore {
  return { ...store, ...replaced }
}

async function listAndDelete(
  store: DeadLetterStore,
  query: Parameters<DeadLetterStore['list']>[0],
): ReturnType<DeadLetterStore['list']> {
  const page = await store.list(query)
  for (const { id } of page.items) await store.delete(id)
  return page
}

/** A broker that produces something else; nothing, and says that it did. */
function producing(
  broker: Broker,
  changed: (records: readonly ProducerRecord[], call: number) => readonly ProducerRecord[] | undefined,
): Broker {
  let calls = 0
  return withCalls(broker, {
    produce: async (records, options, call) => {
      const given = changed(records, (calls += 1))
      if (given !== undefined) return await broker.produce(given, options, call)
      return records.map(({ topic }) => ({ topic, partition: 0, offset: 0, timestampMs: 0 }))
    },
  })
}
