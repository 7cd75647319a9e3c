import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { logBroker } from '../../src/brokers/log.ts'
import { bytesOf } from '../../src/record.ts'
import { spawnNode } from '../support/processes.ts'

describe('opening a log', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'kedge-open-'))
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  test('creates the directory and an empty log', async () => {
    await using broker = logBroker({ dir: join(dir, 'a', 'b') })

    expect(await broker.topics()).toEqual([])
    expect(existsSync(join(dir, 'a', 'b', 'kedge.db'))).toBe(true)
  })

  test('is refused by name while another process has the log open, and allowed once that was killed', async () => {
    await using holder = spawnNode('test/log/holder.ts', [dir])
    await holder.line('open')

    expect(() => logBroker({ dir })).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIG', message: expect.stringContaining(dir) }),
    )

    await holder.kill('SIGKILL')
    await using broker = logBroker({ dir })
    expect(await broker.topics()).toHaveLength(1)
  })

  test('is refused within this process too', async () => {
    await using broker = logBroker({ dir })

    expect(broker.features.claims).toBe(true)
    expect(() => logBroker({ dir })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('refuses a newer schema version and changes no byte', async () => {
    await logBroker({ dir }).close()
    setVersion(dir, 99)
    const before = digestOf(dir)

    expect(() => logBroker({ dir })).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIG', message: expect.stringContaining('99') }),
    )
    expect(digestOf(dir)).toBe(before)
  })

  test('refuses a newer schema version whose process was killed, and changes no byte', async () => {
    await using holder = spawnNode('test/log/holder.ts', [dir])
    await holder.line('open')
    await holder.kill('SIGKILL')
    setVersion(dir, 99)
    const before = digestOf(dir)

    expect(readdirSync(dir)).toContain('kedge.db-wal')
    expect(() => logBroker({ dir })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    expect(digestOf(dir)).toBe(before)
  })

  test.each([
    [
      'a text file',
      (file: string) => writeFileSync(file, 'not a database, but long enough to be looked at '.repeat(10)),
    ],
    ['a short file', (file: string) => writeFileSync(file, 'x')],
    [
      "somebody else's database",
      (file: string) => {
        const database = new DatabaseSync(file)
        database.exec('CREATE TABLE theirs (a)')
        database.close()
      },
    ],
  ])('refuses %s and changes no byte', (_, write) => {
    write(join(dir, 'kedge.db'))
    const before = digestOf(dir)

    expect(() => logBroker({ dir })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    expect(digestOf(dir)).toBe(before)
  })

  test('opens what a crash left within the first transaction', async () => {
    const crashed = join(dir, 'crashed')
    const database = new DatabaseSync(join(dir, 'kedge.db'))
    database.exec('PRAGMA cache_size = 1; BEGIN; CREATE TABLE half (made)')
    database.prepare('INSERT INTO half VALUES (?)').run(new Uint8Array(100_000))
    mkdirSync(crashed)
    for (const name of ['kedge.db', 'kedge.db-journal']) copyFileSync(join(dir, name), join(crashed, name))
    database.close()
    expect(readdirSync(crashed)).toEqual(['kedge.db', 'kedge.db-journal'])
    expect(statSync(join(crashed, 'kedge.db')).size).toBeGreaterThan(0)

    await using broker = logBroker({ dir: crashed })

    expect(await broker.topics()).toEqual([])
  })

  test('leaves a log whole or none, whenever its first process is killed', async () => {
    for (let delayMs = 30; delayMs <= 150; delayMs += 10) {
      const fresh = join(dir, String(delayMs))
      await using holder = spawnNode('test/log/holder.ts', [fresh])
      await sleep(delayMs)
      await holder.kill('SIGKILL')
      await using broker = logBroker({ dir: fresh })
      expect((await broker.topics()).length).toBeLessThanOrEqual(1)
    }
  })

  test('makes pages of 16 KiB', async () => {
    await logBroker({ dir }).close()

    expect(readFileSync(join(dir, 'kedge.db')).readUInt16BE(16)).toBe(16_384)
  })

  test('says what is wrong with a directory that cannot be written', () => {
    writeFileSync(join(dir, 'file'), '')

    expect(() => logBroker({ dir: join(dir, 'file') })).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIG', message: expect.stringContaining('file') }),
    )
  })

  test('keeps records, committed offsets, members and generations over a restart', async () => {
    const group = { groupId: 'g', groupInstanceId: 'a' }
    const limits = { maxWaitMs: 0, maxRecords: 10, maxBytes: 1_000_000 }
    const topics = ['blue']
    const first = logBroker({ dir })
    await first.createTopic({ topic: 'blue', partitions: 2, retentionMs: null })
    await first.produce([
      { topic: 'blue', partition: 1, key: null, value: bytesOf('v'), headers: [{ key: 'h', value: null }] },
    ])
    const before = await first.poll({ group, topics, autoOffsetReset: 'earliest', run: { runId: 'r' }, ...limits })
    await first.commit(group, [{ topic: 'blue', partition: 0, offset: 7, metadata: 'm' }], { runId: 'r' })
    const fetched = await first.fetch([{ topic: 'blue', partition: 1, offset: 0 }], limits)
    await first.close()

    await using second = logBroker({ dir })

    expect(await second.topics()).toEqual([
      { topic: 'blue', partitions: 2, retentionMs: null, retentionBytes: null, maxRecordBytes: 1_048_576 },
    ])
    expect(await second.fetch([{ topic: 'blue', partition: 1, offset: 0 }], limits)).toEqual(fetched)
    expect(await second.committed('g')).toEqual([{ topic: 'blue', partition: 0, offset: 7, metadata: 'm' }])
    const [described] = await second.groups()
    expect(described?.members).toEqual([{ groupInstanceId: 'a', assignment: before.assignment, runId: 'r' }])
    const after = await second.poll({ group, topics, run: { runId: 'r' }, ...limits })
    expect(after.generationId).toBe(before.generationId)
    expect(after.records).toEqual(before.records)
  })
})

/** Writes a schema version where SQLite keeps it in the file's header, and leaves the rest as it is. */
function setVersion(dir: string, version: number): void {
  const file = join(dir, 'kedge.db')
  const bytes = readFileSync(file)
  bytes.writeUInt32BE(version, 60)
  writeFileSync(file, bytes)
}

/** One digest over the names and bytes of everything in a directory. */
function digestOf(dir: string): string {
  const hash = createHash('sha256')
  for (const name of readdirSync(dir).toSorted()) hash.update(name).update(readFileSync(join(dir, name)))
  return hash.digest('hex')
}
