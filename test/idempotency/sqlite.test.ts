import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { sqliteIdempotency } from '../../src/idempotency/sqlite.ts'
import { bytesOf } from '../../src/record.ts'
import { describeIdempotencyStore } from '../conformance/idempotency-store/index.ts'
import { FakeClock } from '../support/clock.ts'

let dir: string
let files = 0
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kedge-idempotency-'))
})
afterAll(() => rm(dir, { recursive: true }))
const nextFile = (): string => join(dir, `${(files += 1)}.db`)

describeIdempotencyStore('sqlite', {
  async open() {
    const clock = new FakeClock()
    const file = nextFile()
    const open = (): ReturnType<typeof sqliteIdempotency> => sqliteIdempotency({ file, clock })
    const store = open()
    return { store, other: open, advance: (ms) => clock.advance(ms), close: () => store.close() }
  },
})

describe('the file', () => {
  test('keeps locks and outcomes when it is closed and opened again', async () => {
    const file = nextFile()
    {
      await using store = sqliteIdempotency({ file })
      await store.begin('done', { owner: 'a', lockMs: 30_000 })
      await store.complete('done', 'a', bytesOf('x'), { keepMs: 60_000 })
      await store.begin('locked', { owner: 'a', lockMs: 30_000 })
    }

    await using store = sqliteIdempotency({ file })

    expect((await store.begin('done', { owner: 'b', lockMs: 1 })).kind).toBe('done')
    expect((await store.begin('locked', { owner: 'b', lockMs: 1 })).kind).toBe('in-progress')
  })

  test('is in WAL mode', async () => {
    const file = nextFile()
    await using store = sqliteIdempotency({ file })
    await store.begin('k', { owner: 'a', lockMs: 1 })
    using database = new DatabaseSync(file)

    expect(database.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' })
  })

  test.each([
    ['of another application', 'CREATE TABLE theirs (id INTEGER)'],
    ['of a newer version', 'UPDATE kedge_idempotency_schema SET version = 2'],
  ])('%s is refused, and left as it is', async (name, sql) => {
    const file = nextFile()
    if (name.includes('version')) await sqliteIdempotency({ file }).close()
    {
      using database = new DatabaseSync(file)
      database.exec(sql)
    }
    const schemaOf = (): unknown[] => {
      using database = new DatabaseSync(file)
      return database.prepare('SELECT name FROM sqlite_schema ORDER BY name').all()
    }
    const before = schemaOf()

    expect(() => sqliteIdempotency({ file })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))

    expect(schemaOf()).toEqual(before)
  })

  test.each(['no database', 'no folder'])('that is %s is refused', async (what) => {
    const file = what === 'no folder' ? join(dir, 'nowhere', 'x.db') : nextFile()
    if (what === 'no database') await writeFile(file, 'hello, this is a text and not a database at all')

    expect(() => sqliteIdempotency({ file })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('that another process writes to is unavailable for now', async () => {
    const file = nextFile()
    await using store = sqliteIdempotency({ file, busyMs: 10 })
    using writer = new DatabaseSync(file)
    writer.exec('BEGIN IMMEDIATE')

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'IDEMPOTENCY_STORE_UNAVAILABLE',
      retriable: true,
    })

    writer.exec('ROLLBACK')
    expect((await store.begin('k', { owner: 'a', lockMs: 1 })).kind).toBe('started')
  })

  test('loses rows that expired over an hour ago, and no others', async () => {
    const file = nextFile()
    const clock = new FakeClock()
    await using store = sqliteIdempotency({ file, clock })
    await store.begin('old', { owner: 'a', lockMs: 1_000 })
    await store.begin('younger', { owner: 'a', lockMs: 60_000 })
    await clock.advance(3_600_000 + 1_000)

    await store.begin('new', { owner: 'a', lockMs: 1_000 })

    using database = new DatabaseSync(file)
    expect(database.prepare('SELECT key FROM kedge_idempotency ORDER BY key').all()).toEqual([
      { key: 'new' },
      { key: 'younger' },
    ])
  })

  test(':memory: says that it is not durable', async () => {
    await using store = sqliteIdempotency({ file: ':memory:' })

    expect(store.features).toMatchObject({ durable: false, linearizable: true })
  })
})
