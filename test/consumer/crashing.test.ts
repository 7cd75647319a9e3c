/** Real processes that one record ends, over a gateway and a log on disk: who is set aside, and what becomes of the others. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { logBroker } from '../../src/brokers/log.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { bytesOf } from '../../src/record.ts'
import { startGateway } from '../support/gateway.ts'
import { type SpawnedProgram, spawnProgram } from '../support/processes.ts'
import { until } from '../support/until.ts'

// Nodes start slowly on a busy machine, and claims of the dead have to lapse.
vi.setConfig({ testTimeout: 150_000 })

const GOOD = ['a', 'b', 'c', 'd', 'e']

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kedge-crashing-'))
})
afterAll(() => rm(dir, { recursive: true }))

/** Lets a process live until it ends by itself, or is stuck with the record. */
async function live(program: SpawnedProgram, how: string): Promise<RunReport | undefined> {
  const reportOf = (): string | undefined => program.printed().find((line) => line.startsWith('{'))
  const isStuck = (): boolean => how === 'loop' && program.printed().includes('begins bad')
  await until(() => program.hasEnded() || reportOf() !== undefined || isStuck(), {
    what: 'the end of a consumer',
    timeoutMs: 45_000,
  })
  await program.kill('SIGKILL')
  const report = reportOf()
  return report === undefined ? undefined : (JSON.parse(report) as RunReport)
}

test.concurrent.each(['signal', 'memory', 'exit', 'loop'])(
  'a record that ends its process by %s is set aside by the third, and the others are handled',
  async (how) => {
    await using broker = logBroker({ dir: join(dir, how) })
    await broker.createTopic({ topic: 'orders', partitions: 2 })
    const at = (partition: number, value: string) => ({ topic: 'orders', partition, key: null, value: bytesOf(value) })
    await broker.produce([at(0, 'a'), at(0, 'bad'), at(0, 'b'), at(0, 'c'), at(1, 'd'), at(1, 'e')])
    await using gateway = await startGateway(broker)

    const printed: string[] = []
    const reports: (RunReport | undefined)[] = []
    for (let start = 1; start <= 3; start++) {
      const args = ['--max-old-space-size=48', 'test/support/crashing-consumer.ts', gateway.url, how]
      await using program = spawnProgram(process.execPath, args)
      reports.push(await live(program, how))
      printed.push(...program.printed())
    }

    expect(reports.slice(0, 2)).toEqual([undefined, undefined])
    expect(reports[2]).toMatchObject({ ended: 'drained', deadLettered: { crashed: 1 }, unfinished: 0, stopped: [] })
    expect(printed.filter((line) => line === 'begins bad')).toHaveLength(2)
    for (const name of GOOD) expect(printed).toContain(`handled ${name}`)
    const { items } = await topicDeadLetters({ broker }).list({})
    expect(items).toMatchObject([
      { reason: 'crashed', attempts: 2, record: { partition: 0, offset: 1, value: bytesOf('bad') } },
    ])
    const committed = await broker.committed('shop')
    expect(committed.map(({ offset, metadata }) => [offset, metadata])).toEqual([
      [4, null],
      [2, null],
    ])
  },
)
