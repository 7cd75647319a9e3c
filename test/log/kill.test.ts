import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { logBroker } from '../../src/brokers/log.ts'
import { textOf } from '../../src/record.ts'
import { spawnNode } from '../support/processes.ts'

const ROUNDS = 10

describe('a log whose process is killed while it produces', () => {
  let dir: string
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'kedge-kill-'))
  })
  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  test('has every acknowledged record at its offset, in the order of its producer, after each kill', async () => {
    const acknowledged = new Map<string, string>()
    for (let round = 0; round < ROUNDS; round++) {
      await using producer = spawnNode('test/log/producer.ts', [dir, String(round)])
      await producer.lines(50 + round * 37)
      await producer.kill('SIGKILL')
      for (const line of producer.printed()) {
        const [partition, offset, value] = line.split(' ')
        const place = `${partition}/${offset}`
        expect(acknowledged.has(place), `offset ${place} was given twice`).toBe(false)
        acknowledged.set(place, value ?? '')
      }
      await expectReadable(dir, acknowledged)
    }

    expect(acknowledged.size).toBeGreaterThan(ROUNDS * 50)
  }, 60_000)
})

async function expectReadable(dir: string, acknowledged: ReadonlyMap<string, string>): Promise<void> {
  await using broker = logBroker({ dir })
  const stored = new Map<string, string>()
  const newest = new Map<string, number>()
  for (let partition = 0; partition < 3; partition++) {
    const [end] = await broker.offsets([{ topic: 'kill', partition }], 'latest')
    for (let offset = 0; offset < (end?.offset ?? 0);) {
      const records = await broker.fetch([{ topic: 'kill', partition, offset }], {
        maxWaitMs: 0,
        maxRecords: 10_000,
        maxBytes: 10_000_000,
      })
      for (const record of records) {
        expect(record.offset).toBe(offset)
        offset += 1
        const value = textOf(record.value)
        stored.set(`${partition}/${record.offset}`, value)
        const [round = '', name = '', sequence] = value.split('/')
        expect(Number(sequence)).toBe((newest.get(`${round}/${name}`) ?? -1) + 1)
        newest.set(`${round}/${name}`, Number(sequence))
      }
    }
  }
  for (const [place, value] of acknowledged) expect(stored.get(place), `the record at ${place}`).toBe(value)
}
