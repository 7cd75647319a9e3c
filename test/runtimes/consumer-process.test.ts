import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { bytesOf } from '../../src/record.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { startGateway } from '../support/gateway.ts'
import { type SpawnedProgram, spawnProgram } from '../support/processes.ts'

// A busy machine may need long to start a process.
vi.setConfig({ testTimeout: 60_000 })

let broker: Broker
let gateway: GatewayServer
let folder: string
beforeEach(async () => {
  broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  gateway = await startGateway(broker)
  folder = await mkdtemp(join(tmpdir(), 'kedge-'))
})
afterEach(async () => {
  await gateway.close()
  await broker.close()
  await rm(folder, { recursive: true })
})

const program = join(import.meta.dirname, '../support/slow-consumer.ts')
const settings = (): Record<string, string> => ({ UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_RUN_MS: '30000' })

function start(...args: string[]): SpawnedProgram {
  return spawnProgram(process.execPath, [program, ...args], { env: settings(), limitMs: 20_000 })
}

const write = (value: string): Promise<unknown> =>
  broker.produce([{ topic: 'orders', key: null, value: bytesOf(value) }])

test('SIGTERM lets what was begun end, commits it, and leaves with 0', async () => {
  await using consumer = start()
  await write('a')
  await consumer.line('begins a')

  await consumer.kill('SIGTERM')

  expect(consumer.printed()).toContain('ended with 0')
  expect(await broker.committed('shop')).toMatchObject([{ offset: 1 }])
  expect((await broker.groups())[0]?.members[0]?.runId).toBeNull()
})

test('SIGTERM waits no longer than it was told to, and what was cut short comes again', async () => {
  await using consumer = start('--drain-ms', '200')
  await write('a')
  await consumer.line('begins a')

  await consumer.kill('SIGTERM')

  expect(consumer.printed()).toContain('ended with 0')
  expect(await broker.committed('shop')).toEqual([])
})

test('SIGHUP reads the settings again, and a mistake in them changes nothing', async () => {
  const file = join(folder, 'settings.env')
  await writeFile(file, 'KEDGE_GROUP_INSTANCE=first')
  await using consumer = start('--settings', file)
  await write('a')
  await consumer.line('handled orders partition 0 offset 0')

  await writeFile(file, 'KEDGE_RUN_MS=never')
  process.kill(consumer.pid, 'SIGHUP')
  await write('b')
  await consumer.line('handled orders partition 0 offset 1')
  await writeFile(file, 'KEDGE_GROUP_INSTANCE=second')
  process.kill(consumer.pid, 'SIGHUP')
  await consumer.line('settings read again')
  // The partition goes to the new instance when the old one has left or its session is over.
  await broker.leave({ groupId: 'shop', groupInstanceId: 'first' })
  await write('c')
  await consumer.line('handled orders partition 0 offset 2')
  await consumer.kill('SIGTERM')

  const [group] = await broker.groups()
  expect(group?.members.map(({ groupInstanceId }) => groupInstanceId)).toEqual(['second'])
  expect(consumer.printed()).toContain('ended with 0')
})

test.each(['KEDGE_DEAD_LETTERS=nowhere:x', 'KEDGE_IDEMPOTENCY=nowhere:x'])(
  'settings with which no run can begin (%s) do not end it at SIGHUP',
  async (mistake) => {
    const file = join(folder, 'settings.env')
    await writeFile(file, '')
    await using consumer = start('--settings', file)
    await write('a')
    await consumer.line('handled orders partition 0 offset 0')

    await writeFile(file, mistake)
    process.kill(consumer.pid, 'SIGHUP')
    await consumer.line('run ended')
    await write('b')
    await consumer.line('handled orders partition 0 offset 1')
    await consumer.kill('SIGTERM')

    expect(consumer.printed()).toContain('ended with 0')
  },
)

test('a handler that never gives the event loop back ends the process, and nothing is committed', async () => {
  const consumer = execFile(process.execPath, [program, '--stall-ms', '2000'], {
    env: { ...process.env, ...settings() },
  })
  let errors = ''
  consumer.stderr?.on('data', (text: string) => (errors += text))
  const ended = once(consumer, 'exit')
  try {
    await write('loop')

    expect(await ended).toEqual([null, 'SIGKILL'])
  } finally {
    consumer.kill('SIGKILL')
  }

  expect(errors).toContain('the event loop stood still for 2000 ms')
  expect(await broker.committed('shop')).toEqual([])
})

test('a handler that only waits, and a process that is frozen, do not', async () => {
  await using consumer = start('--stall-ms', '1000')
  await write('a')
  await consumer.line('begins a')
  process.kill(consumer.pid, 'SIGSTOP')
  await sleep(1_500)
  process.kill(consumer.pid, 'SIGCONT')
  await consumer.line('handled orders partition 0 offset 0')

  await consumer.kill('SIGTERM')

  expect(consumer.printed()).toContain('ended with 0')
})

test.each([
  [['--stall-ms', '10'], 'ended with 2'],
  [['--drain-ms', 'soon'], 'ended with 2'],
  [['--settings', '/nowhere/settings.env'], 'ended with 2'],
  [['--help'], 'ended with 0'],
])('%j says what is wrong, or what there is', async (args, line) => {
  await using consumer = start(...args)
  await consumer.line(line)

  expect(await broker.groups()).toEqual([])
})
