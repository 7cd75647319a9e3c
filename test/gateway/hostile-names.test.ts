/** Names that have broken other servers: answered with 400 or 404 wherever a name can stand, and never more than that. */
import { expect, test } from 'vitest'
import { describeEveryPath } from './every-path.ts'

const names = [
  '..',
  '.',
  '%2e%2e',
  '%2e%2e%2f%2e%2e%2fetc%2fpasswd',
  '..%5c..',
  '%00',
  'a%00b',
  '%0d%0aSet-Cookie:%20x',
  '%ff',
  '%',
  '%u0041',
  'x'.repeat(250),
  '%20',
  '%E2%80%A8',
  '%7F',
  '%F0%9F%92%A9%ED%A0%80',
  '*',
  "';DROP",
  '<script>',
  '${jndi:ldap}',
]
const objectNames = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'con']

describeEveryPath('hostile names', (harness) => {
  test.each([...names, ...objectNames])('as a topic: %s', async (name) => {
    for (const line of [
      `POST /produce/${name}`,
      `GET /produce/${name}/x`,
      `POST /webhook?topic=${name}`,
      `GET /consume/g/i/${name}?timeout=0`,
      `GET /topics/${name}`,
      `DELETE /topics/${name}`,
    ]) {
      expect([400, 404, 405]).toContain((await harness().call(line, { value: 'x' })).status)
    }
    const decoded = decodedName(name)
    for (const [line, body] of [
      ['POST /produce', { topic: decoded, value: 'x' }],
      ['POST /fetch', { topic: decoded, timeout: 0 }],
      ['POST /consume/g/i', { topic: decoded, timeout: 0 }],
      ['POST /commit/g/i', { topic: decoded, partition: 0, offset: 0 }],
      ['POST /offsets/latest', { topic: decoded, partition: 0 }],
    ] as const) {
      expect([400, 404]).toContain((await harness().call(line, body)).status)
    }
    expect((await harness().call('GET /topics')).json).toEqual({ blue: 1, red: 2 })
  })

  test.each([...names, ...objectNames])('as a group and an instance: %s', async (name) => {
    for (const line of [
      `POST /commit/${name}/i`,
      `POST /commit/g/${name}`,
      `DELETE /delete-consumer/${name}/${name}`,
      `GET /groups/${name}`,
      `GET /groups/${name}/dead-letters`,
      `GET /groups/g/dead-letters/${name}`,
      `POST /groups/${name}/redrive/plan`,
      `POST /groups/${name}/redrive/run`,
      `POST /groups/${name}/operations/seek`,
    ]) {
      expect([400, 404]).toContain((await harness().call(line)).status)
    }
    for (const line of [`POST /consume/${name}/i`, `POST /consume/g/${name}`, `POST /claims/${name}/${name}`]) {
      const answer = await harness().call(line, { topic: 'blue', timeout: 0 }, { 'kedge-run': 'r' })
      expect([200, 400, 404]).toContain(answer.status)
    }
  })

  test('as members of a body: __proto__ pollutes nothing', async () => {
    await harness().call(
      'POST /produce/blue',
      '{"value":"x","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}',
    )
    await harness().call('POST /produce', '[{"__proto__":{"topic":"blue"},"value":"x"}]')

    expect(({} as { polluted?: number }).polluted).toBeUndefined()
    expect((await harness().call('POST /fetch', { topic: 'blue' })).json).toHaveLength(1)
  })

  test.each(['PATCH', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND'])(
    '%s where it is not declared is 405 with Allow, and does nothing',
    async (method) => {
      const answer = await harness().call(`${method} /produce/blue/x`)

      expect([answer.status, answer.headers['allow']]).toEqual([405, 'GET, POST'])
      expect((await harness().call('POST /fetch', { topic: 'blue', timeout: 0 })).json).toEqual([])
    },
  )
})

function decodedName(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}
