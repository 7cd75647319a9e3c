import { expect, test } from 'vitest'
import { describeEveryPath, type Harness } from './every-path.ts'

const earliest = { 'Kafka-Auto-Offset-Reset': 'earliest' }
const success = { result: 'Success', error: '', status: 200 }

async function produce(harness: Harness, topic: string, ...values: string[]): Promise<void> {
  const answer = await harness.call(
    `POST /produce/${topic}`,
    values.map((value) => ({ value, partition: 0 })),
  )
  expect(answer.status).toBe(200)
}

function valuesOf(answer: { json: unknown }): unknown[] {
  return (answer.json as { value: unknown }[]).map(({ value }) => value)
}

describeEveryPath('consume', (harness) => {
  test.each([
    ['POST /consume/g/i', { topic: 'blue' }],
    ['GET /consume/g/i', { topic: 'blue' }],
    ['POST /consume/g/i/', { topics: ['blue'] }],
    ['POST /consume/g/i', { topic: 'blue', topics: ['red', 'blue'], timeout: 0 }],
    ['POST /consume/g/i', '{"topics":["blue",],}'],
    ['GET /consume/g/i/blue', undefined],
    ['POST /consume/g/i/blue', ''],
    ['GET /consume/g/i/blue?timeout=3000', undefined],
    ['GET /consume/App%5CGroup%20%C3%BC/0/blue/', undefined],
  ])('reads with %s %j', async (line, body) => {
    await produce(harness(), 'blue', 'a', 'b')

    const answer = await harness().call(line, body, earliest)

    expect(answer.status).toBe(200)
    expect(answer.json).toEqual([
      { topic: 'blue', partition: 0, offset: 0, timestamp: expect.any(Number), key: '', value: 'a', headers: [] },
      { topic: 'blue', partition: 0, offset: 1, timestamp: expect.any(Number), key: '', value: 'b', headers: [] },
    ])
  })

  test('begins at the log end where no reset is given', async () => {
    await produce(harness(), 'blue', 'old')

    const first = await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 })
    await produce(harness(), 'blue', 'new')
    const second = await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 })

    expect([valuesOf(first), valuesOf(second)]).toEqual([[], ['new']])
  })

  test('goes on after what it gave, and lists the instance at once', async () => {
    await produce(harness(), 'blue', 'a')

    const first = await harness().call('POST /consume/g/i', { topic: 'blue' }, earliest)
    const groups = await harness().call('GET /consumers')
    await produce(harness(), 'blue', 'b')
    const second = await harness().call('POST /consume/g/i', { topic: 'blue' })

    expect([valuesOf(first), valuesOf(second)]).toEqual([['a'], ['b']])
    expect(groups.json).toEqual([
      { name: 'g', instances: [{ name: 'i', topics: [{ topic: 'blue', partitions: [0] }] }] },
    ])
  })

  test('tells generation and assignment in headers', async () => {
    const answer = await harness().call('POST /consume/g/i', { topics: ['red', 'blue'], timeout: 0 })

    expect(answer.headers['kedge-assignment']).toBe('blue=0;red=0-1')
    expect(Number(answer.headers['kedge-generation'])).toBeGreaterThanOrEqual(0)
  })

  test('says when to come again, and nothing of the group, while the join waits for others', async () => {
    const { broker } = harness()
    broker.poll = async () => ({ records: [], generationId: 7, assignment: [], retryAfterMs: 1_250.5 })

    const answer = await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 })

    expect([answer.status, answer.json]).toEqual([200, []])
    expect(answer.headers).toMatchObject({ 'kedge-retry-after-ms': '1251', 'retry-after': '2' })
    expect(answer.headers).not.toHaveProperty('kedge-generation')
    expect(answer.headers).not.toHaveProperty('kedge-assignment')
  })

  test('bounds an answer by maxRecords', async () => {
    await produce(harness(), 'blue', 'a', 'b', 'c')

    expect(valuesOf(await harness().call('POST /consume/g/i', { topic: 'blue', maxRecords: 2 }, earliest))).toEqual([
      'a',
      'b',
    ])
  })

  test('wakes a waiting consume when a record arrives', async () => {
    const waiting = harness().call('POST /consume/g/i', { topic: 'blue', timeout: 15_000 }, earliest)
    await untilWaiting(harness(), 1)
    await produce(harness(), 'blue', 'now')

    expect(valuesOf(await waiting)).toEqual(['now'])
  })

  test.each([
    ['no topic', {}, {}],
    ['an empty list', { topics: [] }, {}],
    ['no body', undefined, {}],
    ['a negative timeout', { topic: 'blue', timeout: -1 }, {}],
    ['a text as timeout', { topic: 'blue', timeout: '5' }, {}],
    ['a topic that is no name', { topic: 'a b' }, {}],
    ['an unknown reset', { topic: 'blue' }, { 'Kafka-Auto-Offset-Reset': 'begin' }],
    ['an auto-commit that is no boolean', { topic: 'blue' }, { 'Kafka-Enable-Auto-Commit': 'yes' }],
    ['an interval that is no number', { topic: 'blue' }, { 'Kafka-Auto-Commit-Interval': '5s' }],
    ['a session timeout out of range', { topic: 'blue' }, { 'Kafka-Session-Timeout-Ms': '1' }],
    ['reset none with nothing committed', { topic: 'blue', timeout: 0 }, { 'Kafka-Auto-Offset-Reset': 'none' }],
    ['maxRecords of 0', { topic: 'blue', maxRecords: 0 }, {}],
    ['positions without a run', { topic: 'blue', positions: [] }, {}],
    ['a run with auto-commit', { topic: 'blue' }, { 'Kedge-Run': 'r', 'Kafka-Enable-Auto-Commit': 'true' }],
  ])('refuses %s with 400', async (_what, body, headers) => {
    const answer = await harness().call('POST /consume/g/i', body, headers)

    expect(answer.status).toBe(400)
    expect(answer.json).toEqual({ result: '', error: expect.any(String), status: 400 })
  })

  test('refuses a topic that does not exist with 404', async () => {
    expect((await harness().call('POST /consume/g/i', { topic: 'nope', timeout: 0 })).status).toBe(404)
  })

  test('takes a timeout of any length, and waits no longer than the gateway lets it', async () => {
    const answer = harness().call('POST /consume/g/i', { topic: 'blue', timeout: Number.MAX_SAFE_INTEGER }, earliest)
    await untilWaiting(harness(), 1)
    await produce(harness(), 'blue', 'x')

    expect((await answer).status).toBe(200)
  })
})

describeEveryPath('commit', (harness) => {
  test.each([
    ['no body', 'POST', undefined],
    ['no body on GET', 'GET', undefined],
    ['an empty list', 'POST', []],
    ['an empty object', 'POST', {}],
  ])('with %s stores what the instance was last given', async (_what, method, body) => {
    await produce(harness(), 'blue', 'a', 'b')
    await harness().call('POST /consume/g/i', { topic: 'blue' }, { ...earliest, 'Kafka-Enable-Auto-Commit': 'false' })

    const answer = await harness().call(`${method} /commit/g/i`, body)
    const committed = await harness().call('POST /committed/g/other', { topic: 'blue', partition: 0 })

    expect(answer.json).toEqual(success)
    expect(committed.json).toEqual([{ topic: 'blue', partition: 0, offset: 2 }])
  })

  test.each([
    ['an object', { topic: 'blue', partition: 0, offset: 85 }, 85],
    ['a list, of which the last counts', [85, 87, 86].map((offset) => ({ topic: 'blue', partition: 0, offset })), 86],
  ])('stores exactly what %s says, without a member', async (_what, body, offset) => {
    const answer = await harness().call('POST /commit/g/i/', body)
    const committed = await harness().call('GET /committed/g/i', [{ topic: 'blue', partition: 0 }])

    expect(answer.json).toEqual(success)
    expect(committed.json).toEqual([{ topic: 'blue', partition: 0, offset }])
  })

  test('keeps metadata, and shows it only where there is some', async () => {
    await harness().call('POST /commit/g/i', [
      { topic: 'red', partition: 1, offset: 5, metadata: 'ü' },
      { topic: 'red', partition: 0, offset: 4 },
    ])

    expect((await harness().call('POST /committed/g/i')).json).toEqual([
      { topic: 'red', partition: 0, offset: 4 },
      { topic: 'red', partition: 1, offset: 5, metadata: 'ü' },
    ])
  })

  test('succeeds right after a first consume that gave nothing', async () => {
    await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 })

    expect((await harness().call('POST /commit/g/i')).json).toEqual(success)
  })

  test.each([
    ['an instance that is not there, with no offsets', undefined, 404],
    ['a topic that does not exist', { topic: 'nope', partition: 0, offset: 1 }, 404],
    ['a partition that does not exist', { topic: 'blue', partition: 9, offset: 1 }, 404],
    ['a negative offset', { topic: 'blue', partition: 0, offset: -1 }, 400],
    ['an offset beyond 2^53', '{"topic":"blue","partition":0,"offset":9007199254740993}', 400],
    ['a text as offset', { topic: 'blue', partition: 0, offset: '1' }, 400],
    ['no offset', { topic: 'blue', partition: 0 }, 400],
    ['metadata that is too long', { topic: 'blue', partition: 0, offset: 1, metadata: 'x'.repeat(4097) }, 400],
    ['malformed JSON', '[', 400],
    ['a string', '"x"', 400],
  ])('refuses %s', async (_what, body, status) => {
    expect((await harness().call('POST /commit/g/i', body)).status).toBe(status)
  })
})

describeEveryPath('committed and offsets', (harness) => {
  test('committed answers -1 where nothing is committed, in the order asked', async () => {
    await harness().call('POST /commit/g/i', { topic: 'red', partition: 1, offset: 3 })

    const answer = await harness().call('POST /committed/g/i?timeout=5000', [
      { topic: 'red', partition: 1 },
      { topic: 'blue', partition: 0 },
      { topic: 'red', partition: 0 },
    ])

    expect(answer.json).toEqual([
      { topic: 'red', partition: 1, offset: 3 },
      { topic: 'blue', partition: 0, offset: -1 },
      { topic: 'red', partition: 0, offset: -1 },
    ])
  })

  test('committed answers an empty list with an empty list', async () => {
    expect((await harness().call('POST /committed/g/i', [])).json).toEqual([])
  })

  test.each([
    ['POST /offsets/earliest', 0],
    ['GET /offsets/latest', 3],
    ['POST /offsets/latest/', 3],
    ['POST /offsets/2000', 1],
    ['POST /offsets/1500', 1],
    ['POST /offsets/99999?timeout=100', 3],
    ['POST /offsets/0', 0],
  ])('%s finds offset %i', async (line, offset) => {
    await harness().call(
      'POST /produce/blue',
      [1000, 2000, 3000].map((timestamp) => ({ value: 'x', timestamp })),
    )

    expect((await harness().call(line, { topic: 'blue', partition: 0 })).json).toEqual([
      { topic: 'blue', partition: 0, offset },
    ])
  })

  test.each([
    ['POST /offsets/now', { topic: 'blue', partition: 0 }, 400],
    ['POST /offsets/-1', { topic: 'blue', partition: 0 }, 400],
    ['POST /offsets/1e3', { topic: 'blue', partition: 0 }, 400],
    ['POST /offsets/9007199254740993', { topic: 'blue', partition: 0 }, 400],
    ['POST /offsets/latest', undefined, 400],
    ['POST /offsets/latest', { topic: 'nope', partition: 0 }, 404],
    ['POST /offsets/latest', { topic: 'blue', partition: 1 }, 404],
    ['POST /offsets/latest?timeout=x', { topic: 'blue', partition: 0 }, 400],
    ['POST /committed/g/i?timeout=-1', [], 400],
    ['POST /committed/g/i', { topic: 'blue' }, 400],
  ])('%s %j is refused with %i', async (line, body, status) => {
    expect((await harness().call(line, body)).status).toBe(status)
  })
})

describeEveryPath('fetch', (harness) => {
  test.each([
    ['one partition', 'POST /fetch', { topic: 'blue', partition: 0, offset: 1 }, ['b', 'c']],
    ['a trailing slash', 'POST /fetch/', { topic: 'blue', partition: 0, offset: 2 }, ['c']],
    ['a body on GET', 'GET /fetch', { topic: 'blue', partition: 0, offset: 2 }, ['c']],
    ['only the topic', 'POST /fetch', { topic: 'blue' }, ['a', 'b', 'c']],
    ['the set', 'POST /fetch', { topicPartitionOffsets: [{ topic: 'blue', partition: 0, offset: 2 }] }, ['c']],
    [
      'both together',
      'POST /fetch',
      { topic: 'red', partition: 0, offset: 0, topicPartitionOffsets: [{ topic: 'blue', partition: 0, offset: 2 }] },
      ['c', 'r'],
    ],
    ['maxRecords', 'POST /fetch', { topic: 'blue', offset: 0, maxRecords: 1 }, ['a']],
    ['an offset beyond the end', 'POST /fetch', { topic: 'blue', partition: 0, offset: 99, timeout: 0 }, []],
    ['the log end', 'POST /fetch', { topic: 'blue', partition: 0, offset: 3, timeout: 0 }, []],
  ])('reads with %s', async (_what, line, body, values) => {
    await produce(harness(), 'blue', 'a', 'b', 'c')
    await produce(harness(), 'red', 'r')

    expect(valuesOf(await harness().call(line, body)).toSorted(byName)).toEqual(values)
  })

  test('shows nothing below an offset beyond the end while it waits', async () => {
    await produce(harness(), 'blue', 'a')
    const waiting = harness().call('POST /fetch', { topic: 'blue', partition: 0, offset: 2, timeout: 400 })
    await untilWaiting(harness(), 1)
    await produce(harness(), 'blue', 'b')

    expect((await waiting).json).toEqual([])
  })

  test('refuses an offset outside the log with Kedge-Strict-Offsets', async () => {
    const answer = await harness().call('POST /fetch', { topic: 'blue', offset: 9 }, { 'kedge-strict-offsets': 'true' })

    expect([answer.status, answer.headers['kedge-error']]).toEqual([400, 'OFFSET_OUT_OF_RANGE'])
  })

  test.each([
    [{}, 400],
    [undefined, 400],
    [{ topicPartitionOffsets: [] }, 400],
    [{ topic: 'blue', offset: -1 }, 400],
    [{ topic: 'blue', partition: -1 }, 400],
    [{ topic: 'blue', partition: '0' }, 400],
    [{ topic: 'blue', timeout: -5 }, 400],
    [{ topicPartitionOffsets: [{ topic: 'blue' }] }, 400],
    [{ topic: 'nope' }, 404],
    [{ topic: 'blue', partition: 3 }, 404],
  ])('refuses %j with %i', async (body, status) => {
    expect((await harness().call('POST /fetch', body)).status).toBe(status)
  })
})

describeEveryPath('claims', (harness) => {
  const run = (id: string, more: Record<string, string> = {}): Record<string, string> => ({ 'Kedge-Run': id, ...more })

  test('keep a second run out, and say when to come again', async () => {
    await harness().call(
      'POST /consume/g/i',
      { topic: 'blue', timeout: 0 },
      run('one', { 'Kedge-Claim-Ttl-Ms': '20000' }),
    )

    const answer = await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 }, run('two'))

    expect([answer.status, answer.headers['kedge-error'], answer.headers['kedge-retriable']]).toEqual([
      409,
      'CLAIM_HELD',
      'true',
    ])
    expect(Number(answer.headers['kedge-retry-after-ms'])).toBeGreaterThan(15_000)
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(15)
  })

  test('are taken, renewed and given back on their own path', async () => {
    expect((await harness().call('POST /claims/g/i', undefined, run('one'))).json).toEqual(success)
    expect((await harness().call('POST /claims/g/i', undefined, run('one'))).json).toEqual(success)
    expect((await harness().call('POST /claims/g/i', undefined, run('two'))).status).toBe(409)
    expect((await harness().call('DELETE /claims/g/i', undefined, run('one'))).json).toEqual(success)
    expect((await harness().call('POST /claims/g/i', undefined, run('two'))).json).toEqual(success)
    expect((await harness().call('POST /claims/g/i')).status).toBe(400)
  })

  test('guard the commit', async () => {
    const body = { topic: 'blue', partition: 0, offset: 1 }
    await harness().call('POST /claims/g/i', undefined, run('one'))

    expect((await harness().call('POST /commit/g/i', body, run('two'))).headers['kedge-error']).toBe('CLAIM_LOST')
    expect((await harness().call('POST /commit/g/i', body)).headers['kedge-error']).toBe('CLAIM_LOST')
    expect((await harness().call('POST /commit/g/i', body, run('one'))).json).toEqual(success)
  })

  test('let a run name its positions, so that a lost answer comes again', async () => {
    await produce(harness(), 'blue', 'a', 'b')
    const first = await harness().call(
      'POST /consume/g/i',
      { topic: 'blue', maxRecords: 1 },
      { ...earliest, ...run('one') },
    )
    const generation = { 'Kedge-Generation': String(first.headers['kedge-generation']) }
    const positions = [{ topic: 'blue', partition: 0, offset: 1 }]
    const next = { topic: 'blue', maxRecords: 1, positions }

    const second = await harness().call('POST /consume/g/i', next, run('one', generation))
    const again = await harness().call('POST /consume/g/i', next, run('one', generation))

    expect([valuesOf(first), valuesOf(second), valuesOf(again)]).toEqual([['a'], ['b'], ['b']])
  })
})

/** Until so many calls wait in the gateway. */
async function untilWaiting(harness: Harness, count: number): Promise<void> {
  while (harness.server.gateway.waiting.count < count) await new Promise(setImmediate)
}

function byName(one: unknown, other: unknown): number {
  return String(one).localeCompare(String(other))
}
