import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'

import { afterAll, describe, expect, test } from 'vitest'

import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { migrations } from '../../src/dead-letters/sql.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'

const dir = mkdtempSync(join(tmpdir(), 'kedge-letters-'))
afterAll(() => rmSync(dir, { recursive: true }))

let files = 0
const nextFile = (): string => join(dir, `letters-${(files += 1)}`, 'dead.db')
const storedIn = async (store: DeadLetterStore): Promise<Awaited<ReturnType<DeadLetterStore['list']>>['items']> =>
  (await store.list({ limit: 1000 })).items

describeDeadLetterStore('sqlite, a file', {
  async open() {
    const path = nextFile()
    const store = sqliteDeadLetters({ path })
    // Another opening of the file, so that what is seen is what was written.
    const reader = sqliteDeadLetters({ path })
    return {
      store,
      stored: () => storedIn(reader),
      async close() {
        await store.close()
        await reader.close()
      },
    }
  },
})

describeDeadLetterStore('sqlite, in memory', {
  async open() {
    const store = sqliteDeadLetters({ path: ':memory:' })
    return { store, stored: () => storedIn(store), close: () => store.close() }
  },
})

describe('the file', () => {
  test('holds what was put when the process is gone without a close', async () => {
    const path = nextFile()
    await sqliteDeadLetters({ path }).put(letter())
    // A copy of what is on the disk, taken while the file is still open.
    const copy = nextFile()
    sqliteDeadLetters({ path: copy })
    for (const suffix of ['', '-wal']) writeFileSync(`${copy}.copy${suffix}`, readFileSync(path + suffix))

    await using store = sqliteDeadLetters({ path: `${copy}.copy` })

    expect(plain(await storedIn(store))).toEqual(plain([letter()]))
  })

  test('is in WAL mode, so that reading it never waits for a put', async () => {
    const path = nextFile()
    await using store = sqliteDeadLetters({ path })
    await store.put(letter())

    const database = new DatabaseSync(path)
    expect(database.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' })
    database.close()
  })

  test('can be asked with plain SQL', async () => {
    const path = nextFile()
    await using store = sqliteDeadLetters({ path })
    const code = { name: 'DbError', message: 'row 5', code: 'E_DB' }
    await store.put(letterAt(0, { cause: code }))
    await store.put(letterAt(1, { cause: { ...code, message: 'row 6' } }))
    await store.put(letterAt(2, { reason: 'rejected', redriveCount: 2 }))

    const database = new DatabaseSync(path, { readOnly: true })
    const groups = database
      .prepare(
        'SELECT cause_code, count(*) AS letters, max(redrive_count) AS redrives FROM kedge_dead_letters GROUP BY fingerprint ORDER BY min(sequence)',
      )
      .all()
    database.close()

    expect(groups.map((group) => ({ ...group }))).toEqual([
      { cause_code: 'E_DB', letters: 2, redrives: 0 },
      { cause_code: null, letters: 1, redrives: 2 },
    ])
  })

  test('searches by group, fingerprint, key and time through an index', async () => {
    const path = nextFile()
    await using store = sqliteDeadLetters({ path })
    await store.put(letter())

    const database = new DatabaseSync(path, { readOnly: true })
    for (const column of ['group_id', 'topic', 'fingerprint', 'key_start', 'id']) {
      const [plan] = database
        .prepare(`EXPLAIN QUERY PLAN SELECT 1 FROM kedge_dead_letters WHERE ${column} = ?`)
        .all('x')
      expect(plan?.['detail']).toMatch(/USING (COVERING )?INDEX/)
    }
    database.close()
  })

  test('is shared by processes: what one thread puts while another does is all there', async () => {
    const path = nextFile()
    await using store = sqliteDeadLetters({ path, busyTimeoutMs: 10_000 })
    const other = new Worker(new URL('../support/put-letters.ts', import.meta.url), { workerData: { path, count: 50 } })
    const ended = new Promise((resolve, reject) => void other.once('exit', resolve).once('error', reject))
    for (let offset = 100; offset < 150; offset += 1) await store.put(letterAt(offset))

    expect(await ended).toBe(0)

    expect(await storedIn(store)).toHaveLength(100)
  })

  test('pages end early rather than hold more than 8 MiB of letters', async () => {
    await using store = sqliteDeadLetters({ path: ':memory:' })
    for (let offset = 0; offset < 5; offset += 1) {
      await store.put(letterAt(offset, { record: { value: new Uint8Array(3_000_000) } }))
    }
    const read: number[][] = []
    let cursor: string | undefined
    do {
      const page = await store.list(cursor === undefined ? {} : { cursor })
      read.push(page.items.map(({ record }) => record.offset))
      cursor = page.cursor
    } while (cursor !== undefined)

    expect(read).toEqual([
      [0, 1, 2],
      [3, 4],
    ])
  })
})

describe('is refused by name, and left as it is,', () => {
  test('a file of letters of a newer version', async () => {
    const path = nextFile()
    await sqliteDeadLetters({ path }).close()
    const database = new DatabaseSync(path)
    database.exec(`UPDATE kedge_dead_letter_schema SET version = ${migrations.length + 1}`)
    database.exec('PRAGMA journal_mode = DELETE')
    database.close()
    const before = readFileSync(path)

    expect(() => sqliteDeadLetters({ path })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    expect(() => sqliteDeadLetters({ path })).toThrow(/schema version 2 .* up to 1/)
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  test('a database that holds something else', () => {
    const path = join(dir, 'other.db')
    const database = new DatabaseSync(path)
    database.exec('CREATE TABLE mine (a)')
    database.close()
    const before = readFileSync(path)

    expect(() => sqliteDeadLetters({ path })).toThrow(/holds something else/)
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  test('a file that is no database, and a folder', () => {
    const path = join(dir, 'text')
    writeFileSync(path, 'not a database '.repeat(100))

    for (const wrong of [path, dir]) {
      expect(() => sqliteDeadLetters({ path: wrong })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    }
    expect(readFileSync(path, 'utf8')).toBe('not a database '.repeat(100))
  })
})

test('a put that finds the file locked fails by name after the busy timeout, and the next one succeeds', async () => {
  const path = nextFile()
  await using store = sqliteDeadLetters({ path, busyTimeoutMs: 20 })
  const other = new DatabaseSync(path)
  other.exec('BEGIN IMMEDIATE')

  await expect(store.put(letter())).rejects.toMatchObject({
    name: 'DeadLetterStoreError',
    code: 'DEAD_LETTER_STORE_UNAVAILABLE',
    retriable: true,
  })
  other.exec('ROLLBACK')
  other.close()
  await store.put(letter())

  expect(await storedIn(store)).toHaveLength(1)
})

test('a file that is broken is not a reason to retry', async () => {
  const path = nextFile()
  await sqliteDeadLetters({ path }).close()
  const database = new DatabaseSync(path)
  const page = Number(
    database.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'kedge_dead_letters'").get()?.['rootpage'],
  )
  const pageBytes = Number(database.prepare('PRAGMA page_size').get()?.['page_size'])
  database.close()
  const bytes = readFileSync(path)
  bytes.fill(0xff, (page - 1) * pageBytes, page * pageBytes)
  writeFileSync(path, bytes)
  await using store = sqliteDeadLetters({ path })

  await expect(store.put(letter())).rejects.toMatchObject({ code: 'DEAD_LETTER_STORE_UNAVAILABLE', retriable: false })
})
