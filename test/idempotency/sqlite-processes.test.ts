/** One SQLite file and several real processes: what they race for, and what is left of one that is killed. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { sqliteIdempotency } from '../../src/idempotency/sqlite.ts'
import { textOf } from '../../src/record.ts'
import { FakeClock, START_MS } from '../support/clock.ts'
import { type SpawnedProgram, spawnProgram } from '../support/processes.ts'

const KEYS = 100

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kedge-idempotency-processes-'))
})
afterAll(() => rm(dir, { recursive: true }))

const start = (...args: string[]): SpawnedProgram =>
  spawnProgram(process.execPath, ['test/idempotency/contender.ts', ...args], { limitMs: 15_000 })

test('of processes that begin the same keys, one starts each', async () => {
  const file = join(dir, 'race.db')
  const owners = ['a', 'b', 'c']

  const started = await Promise.all(
    owners.map(async (owner) => {
      await using program = start(file, owner, String(KEYS))
      await program.lines(1)
      return JSON.parse(program.printed()[0] ?? '') as number[]
    }),
  )

  const all = started.flat().sort((a, b) => a - b)
  expect(all).toEqual(Array.from({ length: KEYS }, (_, key) => key))
})

test('a process that is killed leaves its outcome, and its lock until that lapses', async () => {
  const file = join(dir, 'killed.db')
  await using program = start(file, 'dead')
  await program.line('ready')

  await program.kill('SIGKILL')

  await using now = sqliteIdempotency({ file })
  const done = await now.begin('done', { owner: 'next', lockMs: 1 })
  expect(done.kind === 'done' && textOf(done.outcome)).toBe('by the dead')
  expect((await now.begin('locked', { owner: 'next', lockMs: 1 })).kind).toBe('in-progress')
  // As a process sees it that looks when the lock has lapsed.
  const later = new FakeClock()
  await later.advance(Date.now() + 60_000 - START_MS)
  await using then = sqliteIdempotency({ file, clock: later })
  expect((await then.begin('locked', { owner: 'next', lockMs: 1_000 })).kind).toBe('started')
})
