/** `npm run operate` as it is shipped: a process of its own, over a gateway. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test, vi } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { bytesOf } from '../../src/record.ts'
import { startGateway } from '../support/gateway.ts'
import { type CommandAnswer, runScript } from '../support/processes.ts'
import { app } from '../support/operated-app.ts'
import { until } from '../support/until.ts'

// Each command is a process.
vi.setConfig({ testTimeout: 60_000 })

const script = fileURLToPath(new URL('../../scripts/operate.ts', import.meta.url))
const appPath = fileURLToPath(new URL('../support/operated-app.ts', import.meta.url))
const dir = mkdtempSync(join(tmpdir(), 'kedge-operate-'))
afterAll(() => rmSync(dir, { recursive: true }))

interface Shop extends AsyncDisposable {
  readonly broker: Broker
  /** Runs the app over the gateway until nothing is left to read. */
  drain(): Promise<RunReport>
  operate(...args: string[]): Promise<CommandAnswer>
  committed(): Promise<number | undefined>
}

/** A log behind a gateway with records of which the second stops its partition, where a run has been. */
async function openShop(): Promise<Shop> {
  const broker = logBroker({ memory: true })
  await broker.createTopic({ topic: 'orders' })
  await broker.produce(['a', 'poison', 'c'].map((text) => ({ topic: 'orders', key: null, value: bytesOf(text) })))
  const gateway = await startGateway(broker)
  const remote = restBroker({ url: gateway.url })
  let runs = 0
  const drain: Shop['drain'] = () =>
    createConsumer(app, { broker: remote, deadLetters: memoryDeadLetters(), groupInstanceId: 'i' }).run({
      runId: `run-${(runs += 1)}`,
      stopWhenEmpty: true,
    })
  await drain()
  const env = { ...process.env, UPSTASH_KAFKA_REST_URL: gateway.url }
  return {
    broker,
    drain,
    operate: (...args) => operateProcess(env, ...args, '--app', appPath),
    committed: async () => (await broker.committed('shop', [{ topic: 'orders', partition: 0 }]))[0]?.offset,
    async [Symbol.asyncDispose]() {
      await remote.close()
      await gateway.close()
      await broker.close()
    },
  }
}

function operateProcess(env: NodeJS.ProcessEnv, ...args: string[]): Promise<CommandAnswer> {
  return runScript(script, env, args)
}

const back = { topic: 'orders.shop-redrive', partition: 0 }
const one = ['--topic', 'orders', '--partition', '0']

describe('npm run operate', () => {
  test('skips the record that blocks a partition, says so, and leaves an audit', async () => {
    await using shop = await openShop()
    const audit = join(dir, 'audit.jsonl')
    const why = ['--reason', 'nobody can read it', '--actor', 'ann', '--audit', audit]

    const dryRun = await shop.operate('skip', ...one, '--offset', '1', ...why, '--dry-run')
    const before = await shop.committed()
    const skip = await shop.operate('skip', ...one, '--offset', '1', ...why)
    const report = await shop.drain()

    expect(dryRun).toMatchObject({ status: 0, errors: '' })
    expect(dryRun.output).toContain('Nothing was changed.')
    expect(before).toBe(1)
    expect(skip.status).toBe(0)
    expect(skip.output).toMatch(/^orders\[0\] +1 +2 +0 to 3$/m)
    expect(skip.errors).toMatch(/^operation ended orders partition 0 offset 1 verb=skip actor=ann/m)
    const records = readFileSync(audit, 'utf8').trim().split('\n')
    expect(records.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { phase: 'started', actor: 'ann', reason: 'nobody can read it' },
      { phase: 'ended', result: 'done', before: [{ offset: 1 }], after: [{ offset: 2 }] },
    ])
    expect(report).toMatchObject({ ended: 'drained', handled: 1 })
  })

  test('seeks to an offset, a time and the ends of the log', async () => {
    await using shop = await openShop()
    const offsets: unknown[] = []

    for (const to of ['2', 'latest', '2020-01-01T00:00:00Z']) {
      const { status, output } = await shop.operate('seek', '--topic', 'orders', '--to', to, '--json')
      offsets.push([status, (JSON.parse(output) as { after: number }[])[0]?.after, await shop.committed()])
    }

    expect(offsets).toEqual([
      [0, 2, 2],
      [0, 3, 3],
      [0, 0, 0],
    ])
  })

  test('pauses and resumes, and its status says what is paused and how far the group is behind', async () => {
    await using shop = await openShop()

    const pause = await shop.operate('pause', '--topic', 'orders', '--reason', 'the warehouse moves')
    const status = await shop.operate('status')
    const paused = await shop.drain()
    const resume = await shop.operate('resume', '--topic', 'orders')
    const resumed = await shop.drain()

    expect(pause).toMatchObject({ status: 0, output: 'paused: orders\n' })
    expect(status.output).toMatch(/^paused: orders$/m)
    expect(status.output).toMatch(/^orders\[0\] +1 +2 +0 to 3$/m)
    expect(status.output).toMatch(/^i +idle +orders\[0\]/m)
    expect(paused).toMatchObject({ ended: 'paused', polled: 0 })
    expect(resume.output).toBe('paused: nothing\n')
    expect(resumed).toMatchObject({ polled: 2, stopped: [{ offset: 1 }] })
  })

  test('backfills what was handled before, at its rate, and can be stopped from elsewhere', async () => {
    await using shop = await openShop()
    const range = ['--topic', 'orders', '--from', '0']

    const plan = await shop.operate('backfill', ...range, '--until', '1', '--dry-run', '--json')
    const backfill = await shop.operate('backfill', ...range, '--until', '1')
    const slow = shop.operate('backfill', ...range, '--per-second', '0.01')
    await until(async () => ((await shop.broker.offsets([back], 'latest'))[0]?.offset ?? 0) === 2, {
      timeoutMs: 20_000,
    })
    const status = await shop.operate('status')
    const stop = await shop.operate('stop-backfill', '--topic', 'orders')
    const stopped = await slow

    expect(JSON.parse(plan.output)).toMatchObject({ records: 1 })
    expect(backfill.status).toBe(0)
    expect(backfill.output).toMatch(/^replayed +1$/m)
    expect(status.output).toContain('a backfill of at most 0.01 records in a second')
    expect(stop.output).toContain('It is stopped.')
    expect(stopped.status).toBe(1)
    expect(stopped.output).toMatch(/^ended +stopped$/m)
    expect(await shop.drain()).toMatchObject({ handled: 2 })
  })

  test('is refused with the reason, and ends with 1', async () => {
    await using shop = await openShop()
    await shop.broker.claim({ groupId: 'shop', groupInstanceId: 'i' }, { runId: 'somebody' })

    const held = await shop.operate('seek', '--topic', 'orders', '--to', 'earliest')
    const beyond = await shop.operate('seek', '--topic', 'orders', '--to', '4')

    expect(held).toMatchObject({ status: 1, output: '' })
    expect(held.errors).toContain('a run of its instance i is active')
    expect(beyond).toMatchObject({ status: 1, output: '' })
    expect(beyond.errors).toContain('the log has 0 to 3')
    expect(await shop.committed()).toBe(1)
  })

  test.each([
    ['stir', []],
    ['seek', ['--topic', 'orders']],
    ['seek', ['--topic', 'orders', '--to', 'soon']],
    ['seek', ['--topic', 'orders', '--to=-1']],
    ['seek', ['--topic', 'orders', '--to', '2.5']],
    ['seek', ['--topic', 'orders', '--to', 'offset 41']],
    ['seek', ['--topic', 'orders', '--to', '2026-02-30']],
    ['skip', [...one, '--offset', '1']],
    ['skip', [...one, '--offset', 'x', '--reason', 'r']],
    ['pause', ['--dry-run']],
    ['pause', ['--key', 'x']],
    ['status', ['now']],
    ['status', ['--unknown']],
  ])('ends with 2 for what it cannot read: %s %s', async (verb, args) => {
    const { status, output, errors } = await operateProcess(process.env, verb, ...args)

    expect({ status, output }).toEqual({ status: 2, output: '' })
    expect(errors).toContain('npm run operate -- --help tells more.')
  })

  test('explains itself', async () => {
    const asked = await operateProcess(process.env, '--help')
    const lost = await operateProcess(process.env)

    expect(asked.status).toBe(0)
    expect(asked.output).toMatch(/^Usage: npm run operate/)
    expect(lost).toMatchObject({ status: 2, output: asked.output })
  })
})
