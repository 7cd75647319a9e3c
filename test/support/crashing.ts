/** Real processes that one record ends: who is set aside, and what becomes of the others. */
import { expect } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { decodeProgress } from '../../src/consumer/progress.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { bytesOf } from '../../src/record.ts'
import { type SpawnedProgram, spawnProgram } from './processes.ts'
import { until } from './until.ts'

/** Where the processes run. */
export interface CrashSite {
  readonly broker: Broker
  /** Of a gateway over it. */
  readonly url: string
  /** How `crashing-consumer.ts` ends at its record. */
  readonly how: string
}

const GOOD = ['a', 'b', 'c', 'd', 'e']

/** Starts three consumers, one after the other, and expects that the third sets the record aside and handles all others. */
export async function expectSetAside({ broker, url, how }: CrashSite): Promise<void> {
  await broker.createTopic({ topic: 'orders', partitions: 2 })
  const at = (partition: number, value: string) => ({ topic: 'orders', partition, key: null, value: bytesOf(value) })
  await broker.produce([at(0, 'a'), at(0, 'bad'), at(0, 'b'), at(0, 'c'), at(1, 'd'), at(1, 'e')])

  const printed: string[] = []
  const reports: (RunReport | undefined)[] = []
  for (let start = 1; start <= 3; start++) {
    const args = ['--max-old-space-size=48', 'test/support/crashing-consumer.ts', url, how]
    await using program = spawnProgram(process.execPath, args)
    reports.push(await live(program, how))
    printed.push(...program.printed())
  }

  expect(reports.slice(0, 2)).toEqual([undefined, undefined])
  expect(reports[2]).toMatchObject({ ended: 'drained', deadLettered: { crashed: 1 }, unfinished: 0, stopped: [] })
  expect(printed.filter((line) => line === 'begins bad')).toHaveLength(2)
  for (const name of GOOD) expect(printed).toContain(`handled ${name}`)
  const { items } = await topicDeadLetters({ broker }).list({})
  expect(items).toMatchObject([{ reason: 'crashed', attempts: 2, record: { partition: 0, offset: 1 } }])
  const committed = await broker.committed('shop')
  expect(committed.map(({ offset, metadata }) => [offset, decodeProgress(offset, metadata)])).toEqual([
    [4, undefined],
    [2, undefined],
  ])
}

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
