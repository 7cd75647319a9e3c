import { expect, test } from 'vitest'
import { describeEveryPath } from './every-path.ts'

const success = { result: 'Success', error: '', status: 200 }
const defaults = { retentionMs: 604_800_000, retentionBytes: null, maxRecordBytes: 1_048_576 }

describeEveryPath('topics', (harness) => {
  test('are listed with their partition counts', async () => {
    expect((await harness().call('GET /topics')).json).toEqual({ blue: 1, red: 2 })
    expect((await harness().call('POST /topics/')).json).toEqual({ blue: 1, red: 2 })
  })

  test('are described on demand', async () => {
    const described = [
      { topic: 'blue', partitions: 1, ...defaults },
      { topic: 'red', partitions: 2, ...defaults },
    ]

    expect((await harness().call('GET /topics?describe=true')).json).toEqual(described)
    expect((await harness().call('GET /topics/red')).json).toEqual({
      ...described[1],
      offsets: [0, 1].map((partition) => ({ partition, logStartOffset: 0, logEndOffset: 0 })),
    })
  })

  test('are created and deleted', async () => {
    const created = await harness().call('PUT /topics/green', { partitions: 3, retentionMs: null, maxRecordBytes: 10 })
    const again = await harness().call('PUT /topics/green')
    const tooLarge = await harness().call('POST /produce/green', { value: 'x'.repeat(11) })
    const deleted = await harness().call('DELETE /topics/green')
    const gone = await harness().call('DELETE /topics/green')

    expect([created.status, created.json]).toEqual([
      201,
      { topic: 'green', partitions: 3, retentionMs: null, retentionBytes: null, maxRecordBytes: 10 },
    ])
    expect([again.status, again.headers['kedge-error']]).toEqual([409, 'TOPIC_ALREADY_EXISTS'])
    expect([tooLarge.status, tooLarge.headers['kedge-limit']]).toEqual([413, 'maxRecordBytes'])
    expect(deleted.json).toEqual(success)
    expect(gone.status).toBe(404)
  })

  test('may be named as objects name their own parts', async () => {
    for (const name of ['__proto__', 'constructor', 'toString']) {
      expect((await harness().call(`PUT /topics/${name}`)).status).toBe(201)
      expect((await harness().call(`POST /produce/${name}`, { value: 'x' })).status).toBe(200)
    }

    expect((await harness().call('GET /topics')).text).toContain('"__proto__":1')
  })

  test.each([
    ['PUT /topics/a%20b', {}, 400],
    ['PUT /topics/..', {}, 400],
    [`PUT /topics/${'x'.repeat(250)}`, {}, 400],
    ['PUT /topics/new', { partitions: 0 }, 400],
    ['PUT /topics/new', { partitions: 1001 }, 400],
    ['PUT /topics/new', { retentionMs: -5 }, 400],
    ['PUT /topics/new', { partitions: '3' }, 400],
    ['PUT /topics/new', [], 400],
    ['GET /topics/nope', undefined, 404],
    ['GET /topics?describe=maybe', undefined, 400],
  ])('%s %j is refused with %i', async (line, body, status) => {
    expect((await harness().call(line, body)).status).toBe(status)
  })
})

describeEveryPath('groups', (harness) => {
  test('show members, offsets and lag', async () => {
    await harness().call(
      'POST /produce/blue',
      ['a', 'b', 'c'].map((value) => ({ value })),
    )
    await harness().call(
      'POST /consume/g/i',
      { topic: 'blue' },
      { 'kedge-run': 'r', 'kafka-auto-offset-reset': 'earliest' },
    )
    await harness().call(
      'POST /commit/g/i',
      { topic: 'blue', partition: 0, offset: 1, metadata: 'm' },
      { 'kedge-run': 'r' },
    )
    const members = [{ groupInstanceId: 'i', assignment: [{ topic: 'blue', partition: 0 }], runId: 'r' }]
    const group = { groupId: 'g', generationId: expect.any(Number) as number, members }

    expect((await harness().call('GET /groups')).json).toEqual([group])
    expect((await harness().call('GET /groups/g')).json).toEqual({
      ...group,
      offsets: [
        { topic: 'blue', partition: 0, committedOffset: 1, metadata: 'm', logStartOffset: 0, logEndOffset: 3, lag: 2 },
      ],
      lag: 2,
    })
  })

  test('without a member stay in /groups and leave /consumers', async () => {
    await harness().call('POST /commit/g/i', { topic: 'blue', partition: 0, offset: 0 })

    expect((await harness().call('GET /groups')).json).toMatchObject([{ groupId: 'g', members: [] }])
    expect((await harness().call('GET /consumers')).json).toEqual([])
  })

  test.each(['POST', 'DELETE'])(
    'lose an instance by %s /delete-consumer, once, and keep its offsets',
    async (method) => {
      await harness().call('POST /consume/g/i', { topic: 'blue', timeout: 0 })
      await harness().call('POST /commit/g/i', { topic: 'blue', partition: 0, offset: 0 })

      expect((await harness().call(`${method} /delete-consumer/g/i`)).json).toEqual(success)
      expect((await harness().call(`${method} /delete-consumer/g/i`)).status).toBe(404)
      expect((await harness().call('GET /consumers')).json).toEqual([])
      expect((await harness().call('POST /committed/g/i')).json).toHaveLength(1)
    },
  )

  test('that are not there answer 404', async () => {
    expect((await harness().call('GET /groups/nope')).status).toBe(404)
    expect((await harness().call('DELETE /delete-consumer/nope/i')).status).toBe(404)
  })
})

describeEveryPath('the gateway itself', (harness) => {
  test.each(['GET /healthz', 'GET /readyz', 'GET /readyz/'])('%s answers while it serves', async (line) => {
    expect((await harness().call(line)).json).toEqual(success)
  })

  test('GET / says what it is', async () => {
    expect((await harness().call('GET /')).json).toMatchObject({ name: 'kedge' })
  })

  test.each([
    ['GET /docs', 'text/html; charset=utf-8'],
    ['GET /docs/', 'text/html; charset=utf-8'],
    ['GET /docs/swagger-ui.css', 'text/css; charset=utf-8'],
    ['GET /docs/swagger-ui-bundle.js', 'text/javascript; charset=utf-8'],
    ['GET /docs/init.js', 'text/javascript; charset=utf-8'],
  ])('%s is served from here under a strict policy', async (line, type) => {
    const answer = await harness().call(line)

    expect([answer.status, answer.headers['content-type']]).toEqual([200, type])
    expect(answer.headers['content-security-policy']).not.toMatch(/unsafe|https?:/)
    expect(answer.headers['x-content-type-options']).toBe('nosniff')
  })

  test.each(['/docs', '/docs/'])(
    'the page at %s asks for its files, which are here, and nothing else',
    async (path) => {
      const page = await harness().call(`GET ${path}`)
      const asked = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, address = '']) => address)

      expect(asked).toHaveLength(4)
      for (const address of asked) {
        expect(address).not.toMatch(/^(?:\w+:)?\/\//)
        expect((await harness().call(`GET ${new URL(address, harness().url + path).pathname}`)).status).toBe(200)
      }
    },
  )

  test.each([
    'GET /docs/package.json',
    'GET /docs/..%2fpackage.json',
    'GET /docs/__proto__',
    'GET /nope',
    'GET /Topics',
  ])('%s is 404', async (line) => {
    const answer = await harness().call(line)

    expect(answer.json).toEqual({ result: '', error: expect.any(String), status: 404 })
    expect(answer.headers['kedge-error']).toBe('UNKNOWN_ROUTE')
  })
})
