/** `npm run redrive` as it is shipped: a process of its own, over a gateway and a file of dead letters. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { app } from '../../functions/app.ts'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { startGateway } from '../support/gateway.ts'
import { type CommandAnswer, runScript } from '../support/processes.ts'

// Each command is a process.
vi.setConfig({ testTimeout: 60_000 })

const script = fileURLToPath(new URL('../../scripts/redrive.ts', import.meta.url))
const dir = mkdtempSync(join(tmpdir(), 'kedge-redrive-'))
afterAll(() => rmSync(dir, { recursive: true }))

interface Shop extends AsyncDisposable {
  readonly broker: Broker
  /** Runs the app until nothing is left to read. */
  drain(): Promise<RunReport>
  redrive(...args: string[]): Promise<CommandAnswer>
}

let shops = 0

/** The app of functions/app.ts with two dead letters: `shop/orders/0/0`, which is no JSON, and `shop/orders/0/1`, which is no order. */
async function openShop(): Promise<Shop> {
  const path = join(dir, `letters-${(shops += 1)}.db`)
  const broker = memoryBroker()
  const deadLetters = sqliteDeadLetters({ path })
  await broker.createTopic({ topic: 'orders' })
  await broker.produce([
    { topic: 'orders', key: bytesOf('eu'), value: bytesOf('no order') },
    { topic: 'orders', key: bytesOf('us'), value: bytesOf('{"id":"a1"}') },
  ])
  const gateway = await startGateway(broker)
  let runs = 0
  const drain: Shop['drain'] = () =>
    createConsumer(app, { broker, deadLetters, groupInstanceId: 'i' }).run({
      runId: `run-${(runs += 1)}`,
      stopWhenEmpty: true,
    })
  await drain()
  const env = { ...process.env, UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_DEAD_LETTERS: `sqlite:${path}` }
  return {
    broker,
    drain,
    redrive: (...args) => redriveProcess(env, ...args),
    async [Symbol.asyncDispose]() {
      await deadLetters.close()
      await gateway.close()
      await broker.close()
    },
  }
}

function redriveProcess(env: NodeJS.ProcessEnv, ...args: string[]): Promise<CommandAnswer> {
  return runScript(script, env, args)
}

const countIn = async ({ broker }: Shop, topic: string): Promise<number | undefined> =>
  (await broker.offsets([{ topic, partition: 0 }], 'latest'))[0]?.offset

describe('npm run redrive', () => {
  test('plans without writing', async () => {
    await using shop = await openShop()

    const plan = await shop.redrive('plan')
    const dryRun = await shop.redrive('run', '--dry-run', '--key', 'eu', '--json')

    expect(plan).toMatchObject({ status: 0, errors: '' })
    expect(plan.output).toMatch(/^letters +2$/m)
    expect(plan.output).toMatch(/^redrivable +2$/m)
    expect(plan.output).toMatch(/^invalid +2 {2}/m)
    expect(JSON.parse(dryRun.output)).toMatchObject({ letters: 1, byTopic: { buckets: [{ value: 'orders' }] } })
    expect(await countIn(shop, 'orders.shop-redrive')).toBe(0)
  })

  test('runs over what matches, says so, and leaves an audit', async () => {
    await using shop = await openShop()
    const audit = join(dir, 'audit.jsonl')

    const flags = ['--actor', 'ann', '--audit', audit, '--until', '2100-01-01', '--max', '1']
    const run = await shop.redrive('run', '--topic', 'orders', ...flags)
    const again = await shop.drain()

    expect(run.status).toBe(0)
    expect(run.output).toMatch(/^redriven +1$/m)
    expect(run.output).toMatch(/^ended +max-letters$/m)
    expect(run.errors).toMatch(/^redrive ended action=run actor=ann/m)
    const records = readFileSync(audit, 'utf8').trim().split('\n')
    expect(records.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { phase: 'started', actor: 'ann', filter: { topic: 'orders' } },
      { phase: 'ended', actor: 'ann', result: 'max-letters', counts: { redriven: 1 } },
    ])
    expect(again.deadLettered).toEqual({ invalid: 1 })
    expect((await shop.redrive('show')).output).toMatch(/^shop\/orders\/0\/0\/1 /m)
  })

  test('shows a letter, and its value only when asked', async () => {
    await using shop = await openShop()

    const list = await shop.redrive('show', '--json', '--max', '1')
    const one = await shop.redrive('show', 'shop/orders/0/0')
    const all = await shop.redrive('show', 'shop/orders/0/0', '--value')

    expect(JSON.parse(list.output)).toMatchObject({ id: 'shop/orders/0/0', offset: 0, valueBytes: 8 })
    expect(one.output).toMatch(/^reason +invalid$/m)
    expect(one.output).not.toContain('no order')
    expect(all.output).toMatch(/^value +no order$/m)
    expect((await shop.redrive('show', 'shop/orders/0/7')).status).toBe(2)
  })

  test('hands an edited letter back, once the schema accepts it', async () => {
    await using shop = await openShop()
    const file = join(dir, 'value.json')

    writeFileSync(file, '{"id":"a1","total":"canary"}')
    const refused = await shop.redrive('edit', 'shop/orders/0/1', '--value-file', file)
    writeFileSync(file, '{"id":"a1","total":9.5}')
    const done = await shop.redrive('edit', 'shop/orders/0/1', '--value-file', file)

    expect(refused.status).toBe(1)
    expect(refused.errors).toContain('total')
    expect(refused.errors + done.errors).not.toContain('canary')
    expect(done).toMatchObject({ status: 0, output: 'redriven with another value: shop/orders/0/1\n' })
    expect(await shop.drain()).toMatchObject({ handled: 1, deadLettered: {} })
  })

  test('fails by its status where another redrive is active, and says when to come back', async () => {
    await using shop = await openShop()
    await shop.broker.claim({ groupId: 'shop-redrive', groupInstanceId: 'redrive' }, { runId: 'another' })

    const run = await shop.redrive('run')

    expect(run).toMatchObject({ status: 1, output: '' })
    expect(run.errors).toMatch(/another redrive of it is active.* in \d+ ms/)
  })

  test.each([
    [['nonsense'], 'There is no command nonsense'],
    [['run', '--bogus'], '--bogus'],
    [['run', 'shop/orders/0/0'], 'takes no shop/orders/0/0'],
    [['run', '--reason', 'bored'], 'there is no bored'],
    [['plan', '--from', 'yesterday'], 'is no time'],
    [['run', '--from', '2026'], 'is no time in milliseconds'],
    [['run', '--from', '1764244800'], 'is no time in milliseconds'],
    [['run', '--max', 'ten'], 'is no number'],
    [['edit', 'shop/orders/0/0'], '--value-file'],
    [['edit', 'shop/orders/0/0', '--value-file', '/none/value.json'], '--value-file: ENOENT'],
    [['plan', '--app', 'none/app.ts'], '--app: there is no file none/app.ts'],
  ])('cannot read %j', async (args, text) => {
    await using shop = await openShop()

    const answer = await shop.redrive(...args)

    expect(answer).toMatchObject({ status: 2, output: '' })
    expect(answer.errors).toContain(text)
    expect(answer.errors).toContain('--help')
  })

  test.each([
    ['edit', ['shop/orders/0/1', '--value-file', 'MENDED', '--dry-run'], 'edit takes no --dry-run'],
    ['run', ['--value-file', 'MENDED'], 'run takes no --value-file'],
    ['run', ['--null'], 'run takes no --null'],
    ['show', ['--dry-run'], 'show takes no --dry-run'],
  ])('does nothing where %s would pass over a flag: %j', async (command, args, text) => {
    await using shop = await openShop()
    const mended = join(dir, 'mended.json')
    writeFileSync(mended, '{"id":"a1","total":9.5}')

    const answer = await shop.redrive(command, ...args.map((arg) => (arg === 'MENDED' ? mended : arg)))

    expect(answer).toMatchObject({ status: 2, output: '' })
    expect(answer.errors).toContain(text)
    expect(await countIn(shop, 'orders.shop-redrive')).toBe(0)
  })

  test('hands nothing back where its audit cannot be written, and says what to give', async () => {
    await using shop = await openShop()

    const { status, errors } = await shop.redrive('run', '--audit', '/none/audit.jsonl')

    expect(status).toBe(1)
    expect(errors).toMatch(/Cannot write the audit: .*--audit\.\n$/)
    expect(errors).not.toContain(' at ')
    expect(await countIn(shop, 'orders.shop-redrive')).toBe(0)
  })

  test('takes how long it keeps others out when it is killed, within its range', async () => {
    await using shop = await openShop()

    const refused = await shop.redrive('run', '--claim-ttl-ms', '999')
    const { status } = await shop.redrive('run', '--claim-ttl-ms', '5000')

    expect([refused.status, refused.errors]).toEqual([1, expect.stringContaining('claimTtlMs is 999')])
    expect(status).toBe(0)
  })

  test('tells all of this', async () => {
    await using shop = await openShop()

    expect(await shop.redrive('--help')).toMatchObject({ status: 0, errors: '' })
    expect((await shop.redrive()).status).toBe(2)
  })

  test('hands back what is in the topic where dead letters go unless a setting says otherwise, to its group alone', async () => {
    await using behind = memoryBroker()
    await behind.createTopic({ topic: 'orders', partitions: 2 })
    const gateway = await startGateway(behind)
    await using broker = restBroker({ url: gateway.url })
    const values = ['a', 'b', 'c', 'd']
    await broker.produce(values.map((value) => ({ topic: 'orders', key: bytesOf(value), value: bytesOf(value) })))
    let isDown = true
    const handled: { readonly shop: string[]; readonly other: string[] } = { shop: [], other: [] }
    const drain = async (groupId: 'shop' | 'other'): Promise<RunReport> => {
      const router = createRouter().on(
        { topic: 'orders' },
        ({ value }) => {
          if (isDown && groupId === 'shop') throw new Error('the warehouse is down')
          handled[groupId].push(textOf(value))
        },
        { retry: { maxAttempts: 1 }, breaker: null },
      )
      await using deadLetters = topicDeadLetters({ broker })
      const consumer = createConsumer(defineApp({ groupId, router, redrive: true }), {
        broker,
        deadLetters,
        groupInstanceId: 'i',
      })
      return await consumer.run({ runId: randomUUID(), stopWhenEmpty: true })
    }
    const env = { ...process.env, UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_DEAD_LETTERS: undefined }
    expect(await drain('shop')).toMatchObject({ handled: 0, deadLettered: { exhausted: 4 } })
    await drain('other')
    isDown = false

    const plan = await redriveProcess(env, 'plan', '--json')
    const first = await redriveProcess(env, 'run', '--max', '3', '--json')
    const second = await redriveProcess(env, 'run', '--json')
    const third = await redriveProcess(env, 'run', '--json')
    for (const groupId of ['shop', 'other'] as const) await drain(groupId)

    expect(JSON.parse(plan.output)).toMatchObject({ letters: 4, redrivable: 4 })
    expect(JSON.parse(first.output)).toMatchObject({ ended: 'max-letters', redriven: 3 })
    expect(JSON.parse(second.output)).toMatchObject({ ended: 'done', redriven: 1 })
    expect(JSON.parse(third.output)).toMatchObject({ ended: 'done', redriven: 0 })
    expect(handled.shop.toSorted()).toEqual(values)
    expect(handled.other.toSorted()).toEqual(values)
    await gateway.close()
  })
})
