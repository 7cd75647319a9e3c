import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import { idempotencyDrivers } from '../../src/runtimes/idempotency-drivers.ts'
import { openIdempotency } from '../../src/runtimes/open-idempotency.ts'

const store = memoryIdempotency()
const lock = { owner: 'a', lockMs: 1_000 }

test('the scheme chooses the driver, which gets the URL', async () => {
  const seen: URL[] = []

  const opened = await openIdempotency('d1:DB', { d1: (url) => (seen.push(url), store) })

  expect(opened).toBe(store)
  expect(seen.map(({ pathname }) => pathname)).toEqual(['DB'])
})

test('memory: is there on every platform', async () => {
  await using opened = await openIdempotency('memory:', {})

  expect(opened.features).toMatchObject({ durable: false, linearizable: true })
})

test.each(['redis://user:hunter2@host', 'constructor:x', 'no url', ''])(
  '%j is refused, secrets kept',
  async (address) => {
    const failure: unknown = await openIdempotency(address, { d1: () => store }).catch((thrown: unknown) => thrown)

    expect(failure).toMatchObject({
      code: 'INVALID_CONFIG',
      message: expect.stringContaining('memory, d1') as string,
    })
    expect(String(failure)).not.toContain('hunter2')
  },
)

test.each(['memory:?keep=1', 'dynamodb://user:hunter2@table', 'sqlite:a.db#x', 'dynamodb://table?region=eu-west-1'])(
  '%j has parts that nobody reads, and is refused',
  async (address) => {
    const failure: unknown = await openIdempotency(address, idempotencyDrivers).catch((thrown: unknown) => thrown)

    expect(failure).toMatchObject({ code: 'INVALID_CONFIG' })
    expect(String(failure)).not.toContain('hunter2')
  },
)

describe('on Lambda and Node', () => {
  let dir: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kedge idempotency-'))
  })
  afterAll(() => rm(dir, { recursive: true }))

  test('sqlite: takes a path, absolute in both forms, with spaces', async () => {
    const file = join(dir, 'a file.db')
    await using first = await openIdempotency(`sqlite:${file}`, idempotencyDrivers)
    await first.begin('k', lock)

    await using second = await openIdempotency(`sqlite://${file}`, idempotencyDrivers)

    expect((await second.begin('k', { owner: 'b', lockMs: 1 })).kind).toBe('in-progress')
  })

  test('dynamodb: takes a table', async () => {
    await using opened = await openIdempotency('dynamodb://My_Table.1', idempotencyDrivers)

    expect(opened.features).toMatchObject({ durable: true, linearizable: true })
  })

  test.each(['sqlite:', 'sqlite://host/a.db', 'sqlite:%E0%A4%A', 'dynamodb:', 'dynamodb://table/more', 'dynamodb://a'])(
    '%s is refused',
    async (address) => {
      await expect(openIdempotency(address, idempotencyDrivers)).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
    },
  )
})
