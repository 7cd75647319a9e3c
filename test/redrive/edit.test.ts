import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { defineApp } from '../../src/app.ts'
import { DeadLetterStoreError, RecordError } from '../../src/errors.ts'
import { headersOf } from '../../src/headers.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { RedriveAudit } from '../../src/redrive/audit.ts'
import type { Redrive } from '../../src/redrive.ts'
import { createRouter } from '../../src/router.ts'
import { defineTopic, narrowTopic } from '../../src/topic.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench } from '../support/consumer.ts'
import { createRedrive } from '../../src/redrive.ts'
import type { RedriveOptions } from '../../src/redrive.ts'
import { REDRIVE_TOPIC } from './bench.ts'

const actor = 'ann'
const orders = defineTopic(TOPIC, z.object({ total: z.number() }), { maxRecordBytes: 200 })
const large = narrowTopic(orders, z.object({ total: z.number().min(100) }))

interface EditBench extends Bench {
  readonly handled: { readonly total: number; readonly offset: number; readonly headers: unknown }[]
  readonly audit: RedriveAudit[]
  readonly lines: LogEvent[]
  redrive(options?: Partial<RedriveOptions>): Redrive
}

/** A bench with one letter, `g/t/1/0`: an order that its schema refuses. */
async function openEditBench(): Promise<EditBench> {
  const handled: { total: number; offset: number; headers: unknown }[] = []
  const [audit, lines]: [RedriveAudit[], LogEvent[]] = [[], []]
  const router = createRouter()
    .on(orders, ({ value: { total }, offset, headers }) => {
      if (total < 0) throw new Error('no refunds')
      handled.push({ total, offset, headers })
    })
    .on({ topic: large, headers: { size: 'large' } }, ({ value: { total }, offset, headers }) => {
      handled.push({ total, offset, headers })
    })
  const bench = await openBench({ partitions: 2, app: { router, redrive: true, retry: { maxAttempts: 2 } } })
  const { broker, letters: store, app, clock } = bench
  await broker.produce([
    { topic: TOPIC, partition: 1, key: bytesOf('k'), value: bytesOf('{"total":"9"}'), headers: headersOf({ a: '1' }) },
  ])
  await bench.drain()
  return Object.assign(bench, {
    handled,
    audit,
    lines,
    redrive: (options: Partial<RedriveOptions> = {}) =>
      createRedrive({
        broker,
        store,
        groupId: 'g',
        app,
        clock,
        audit: (record) => void audit.push(record),
        log: (line) => lines.push(line),
        ...options,
      }),
  })
}

const id = 'g/t/1/0'
const edit = (bench: EditBench, value: string | null, options: Partial<RedriveOptions> = {}): Promise<void> =>
  finish(bench.clock, bench.redrive(options).edit({ actor, id, value: value === null ? null : bytesOf(value) }))

describe('an edit', () => {
  test('hands the letter back with the new value, and all else as it was', async () => {
    const bench = await openEditBench()

    await edit(bench, '{"total":9}')
    await bench.drain()

    expect(bench.handled).toEqual([{ total: 9, offset: 0, headers: headersOf({ a: '1' }) }])
    expect((await bench.letters.list()).items).toEqual([])
  })

  test('that fails again makes a letter of the new value under the first coordinates', async () => {
    const bench = await openEditBench()

    await edit(bench, '{"total":-1}')
    await bench.drain()

    const [letter] = (await bench.letters.list()).items
    expect(letter).toMatchObject({ id: 'g/t/1/0/1', redriveCount: 1, attempts: 2, record: { partition: 1, offset: 0 } })
    expect(textOf(letter?.record.value ?? null)).toBe('{"total":-1}')
  })

  test.each([
    ['the schema refuses', '{"total":"canary"}'],
    ['is not JSON', 'canary'],
    ['is null where the schema takes none', null],
  ])('whose value %s is refused, and the letter stays', async (_name, value) => {
    const bench = await openEditBench()

    const refusal = edit(bench, value)

    await expect(refusal).rejects.toBeInstanceOf(RecordError)
    expect((await bench.letters.list()).items).toHaveLength(1)
    expect((await bench.broker.topics()).map(({ topic }) => topic)).toContain(REDRIVE_TOPIC)
    expect(await bench.broker.offsets([{ topic: REDRIVE_TOPIC, partition: 1 }], 'latest')).toMatchObject([
      { offset: 0 },
    ])
    expect(bench.audit.at(-1)).toMatchObject({ action: 'edit', actor, letterId: id, result: 'refused' })
    expect(JSON.stringify([bench.audit, bench.lines])).not.toContain('canary')
  })

  test('whose value the route refuses, or that no route takes, is refused', async () => {
    const bench = await openEditBench()
    const router = createRouter().on({ topic: large, key: 'k' }, () => undefined)
    const narrow = defineApp({ groupId: 'g', router, redrive: true })
    const other = createRouter().on({ topic: orders, key: 'other' }, () => undefined)
    const without = defineApp({ groupId: 'g', router: other, redrive: true })
    const byValue = createRouter().on({ topic: orders, value: { total: 5 } }, () => undefined)
    const picky = defineApp({ groupId: 'g', router: byValue, redrive: true })

    await expect(edit(bench, '{"total":99}', { app: narrow })).rejects.toThrow('total')
    await expect(edit(bench, '{"total":100}', { app: without })).rejects.toThrow('no route takes it')
    await expect(edit(bench, '{"total":6}', { app: picky })).rejects.toThrow('no route takes it')
    await edit(bench, '{"total":5}', { app: picky })
    expect((await bench.letters.list()).items).toEqual([])
  })

  test("of a value over the topic's size is refused", async () => {
    const bench = await openEditBench()

    await expect(edit(bench, `{"total":1,"note":"${'x'.repeat(200)}"}`)).rejects.toMatchObject({
      code: 'MESSAGE_TOO_LARGE',
    })
    expect((await bench.letters.list()).items).toHaveLength(1)
  })

  test('of no letter, of one of another group, and of one that came back too often is refused', async () => {
    const bench = await openEditBench()
    const [letter] = (await bench.letters.list()).items
    if (letter === undefined) throw new Error('There is no letter.')
    await bench.letters.put({ ...letter, id: 'other/t/1/0', groupId: 'other' })
    await bench.letters.put({ ...letter, id: 'g/t/1/0/3', redriveCount: 3 })
    const value = bytesOf('{"total":9}')
    const refused = async (of: string, why: string): Promise<void> => {
      const refusal = finish(bench.clock, bench.redrive().edit({ actor, id: of, value }))
      await expect(refusal).rejects.toBeInstanceOf(DeadLetterStoreError)
      await expect(refusal).rejects.toThrow(why)
    }

    await refused('g/t/1/7', 'no such letter')
    await refused('other/t/1/0', 'group other')
    await refused('g/t/1/0/3', 'at most 3')
    expect((await bench.letters.list()).items).toHaveLength(3)
  })

  test('goes in although the letter itself was produced by a redrive that died', async () => {
    const bench = await openEditBench()
    const store = new Proxy(bench.letters, {
      get: (target, name) =>
        name === 'delete' ? () => Promise.reject(new Error('killed')) : (Reflect.get(target, name) as unknown),
    })
    await finish(bench.clock, bench.redrive({ store }).run({ actor }))

    await edit(bench, '{"total":9}')
    await bench.drain()

    expect(bench.handled).toMatchObject([{ total: 9 }])
  })

  test('that failed after it was begun is said to have failed', async () => {
    const bench = await openEditBench()
    const broker = withCalls(bench.broker, { produce: () => Promise.reject(new Error('no disk')) })

    await expect(edit(bench, '{"total":9}', { broker })).rejects.toThrow('no disk')
    expect(bench.audit.at(-1)).toMatchObject({ result: 'failed' })
    expect(bench.audit.at(-1)).not.toHaveProperty('counts')
  })

  test('needs the app, and is kept out by a redrive that is active', async () => {
    const bench = await openEditBench()
    const { broker, letters: store, clock } = bench
    const without = createRedrive({ broker, store, groupId: 'g', clock })
    await broker.claim({ groupId: 'g-redrive', groupInstanceId: 'redrive' }, { runId: 'another' })

    await expect(without.edit({ actor, id, value: null })).rejects.toThrow('Give the app')
    await expect(edit(bench, '{"total":9}')).rejects.toMatchObject({ code: 'CLAIM_HELD' })
  })
})
