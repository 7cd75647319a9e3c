/** A log that an older Kedge wrote. Only one version exists so far, so the next one is made up here. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { logBroker } from '../../src/brokers/log.ts'
import { migrations } from '../../src/log/sql-store.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { spawnNode } from '../support/processes.ts'

/** The list is frozen by its type alone; a newer Kedge has a longer one. */
const steps = migrations as (readonly string[])[]
const version = steps.length

describe('a log of an older version', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'kedge-migration-'))
  })
  afterEach(() => {
    steps.length = version
    rmSync(dir, { recursive: true })
  })

  test('is taken to the newest version with all that is in it, and then refused by the older one', async () => {
    await writeLog(dir)
    steps.push(['CREATE TABLE added (a)'], ['ALTER TABLE added ADD COLUMN b', 'INSERT INTO added VALUES (1, 2)'])

    for (let opened = 0; opened < 2; opened++) expect(await valuesIn(dir)).toEqual(['kept'])
    expect(read(dir, 'PRAGMA user_version')).toEqual({ user_version: version + 2 })
    expect(read(dir, 'SELECT count(*) AS count, a, b FROM added')).toEqual({ count: 1, a: 1, b: 2 })

    steps.length = version
    expect(() => logBroker({ dir })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('is taken there too when its process was killed', async () => {
    await using holder = spawnNode('test/log/holder.ts', [dir])
    await holder.line('open')
    await holder.kill('SIGKILL')
    steps.push(['CREATE TABLE added (a)'])

    await using broker = logBroker({ dir })

    expect(await broker.topics()).toHaveLength(1)
  })

  test('stays as it was when a step fails, and opens again', async () => {
    await writeLog(dir)
    steps.push(['CREATE TABLE added (a)'], ['CREATE TABLE added (a)'])

    expect(() => logBroker({ dir })).toThrow(/added/)
    steps.length = version

    expect(await valuesIn(dir)).toEqual(['kept'])
    expect(read(dir, 'PRAGMA user_version')).toEqual({ user_version: version })
    expect(read(dir, "SELECT count(*) AS count FROM sqlite_schema WHERE name = 'added'")).toEqual({ count: 0 })
  })
})

async function writeLog(dir: string): Promise<void> {
  await using broker = logBroker({ dir })
  await broker.createTopic({ topic: 'blue' })
  await broker.produce([{ topic: 'blue', key: null, value: bytesOf('kept') }])
}

async function valuesIn(dir: string): Promise<string[]> {
  await using broker = logBroker({ dir })
  const limits = { maxWaitMs: 0, maxRecords: 10, maxBytes: 1_000 }
  const records = await broker.fetch([{ topic: 'blue', partition: 0, offset: 0 }], limits)
  return records.map(({ value }) => textOf(value))
}

/** The first row of a query over the closed log. */
function read(dir: string, sql: string): unknown {
  const database = new DatabaseSync(join(dir, 'kedge.db'), { readOnly: true })
  try {
    return { ...database.prepare(sql).get() }
  } finally {
    database.close()
  }
}
