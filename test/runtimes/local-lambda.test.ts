import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type LocalLambda, openLocalLambda } from '../../scripts/lambda/local-lambda.ts'

const taskRoot = mkdtempSync(join(tmpdir(), 'kedge-lambda-'))
writeFileSync(join(taskRoot, 'package.json'), '{"type":"module"}')
writeFileSync(
  join(taskRoot, 'sample.js'),
  `let count = 0
   export async function handler(event, context) {
     count += 1
     console.log('invoked', context.awsRequestId.length)
     if (event.do === 'throw') throw new RangeError('no such thing')
     if (event.do === 'hang') await new Promise(() => setInterval(() => undefined, 1000))
     if (event.do === 'exit') process.exit(3)
     return { count, remainingMs: context.getRemainingTimeInMillis() }
   }`,
)
writeFileSync(join(taskRoot, 'broken.js'), `throw new Error('cannot load')`)

afterAll(() => rmSync(taskRoot, { recursive: true }))

const lines: string[] = []

function open(handler = 'sample.handler', timeoutMs = 5000): Promise<LocalLambda> {
  return openLocalLambda({ taskRoot, handler, env: {}, timeoutMs, onLine: (line) => lines.push(line) })
}

async function answerOf(lambda: LocalLambda, event: unknown): Promise<{ count: number; remainingMs: number }> {
  const result = await lambda.invoke(event)
  if (result.kind !== 'response') throw new Error(`expected a response, got ${JSON.stringify(result)}`)
  return JSON.parse(result.body) as { count: number; remainingMs: number }
}

describe('local lambda', () => {
  test('keeps one process warm between invocations and gives each its own deadline', async () => {
    await using lambda = await open()

    const [first, second] = await Promise.all([answerOf(lambda, {}), answerOf(lambda, {})])

    expect([first.count, second.count]).toEqual([1, 2])
    for (const { remainingMs } of [first, second]) {
      expect(remainingMs).toBeGreaterThan(3000)
      expect(remainingMs).toBeLessThanOrEqual(5000)
    }
    expect(lines).toContain('invoked 36')
  })

  test('reports what the handler throws, and goes on', async () => {
    await using lambda = await open()

    const failed = await lambda.invoke({ do: 'throw' })

    expect(failed).toMatchObject({ kind: 'error', errorType: 'RangeError' })
    expect((await answerOf(lambda, {})).count).toBe(2)
  })

  test('kills a process that outlives its deadline, and the next invocation starts cold', async () => {
    await using lambda = await open('sample.handler', 1500)

    expect(await lambda.invoke({ do: 'hang' })).toEqual({ kind: 'timeout' })
    expect((await answerOf(lambda, {})).count).toBe(1)
  })

  test('notices a process that exits, and one that cannot load', async () => {
    await using exiting = await open()
    await using broken = await open('broken.handler')

    expect(await exiting.invoke({ do: 'exit' })).toEqual({ kind: 'exit' })
    expect(await broken.invoke({})).toMatchObject({ kind: 'error', errorType: 'Error' })
  })
})
