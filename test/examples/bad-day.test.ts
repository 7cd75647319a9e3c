import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const folder = new URL('../../examples/bad-day/', import.meta.url)
const run = promisify(execFile)

test('a bad day ends with every order paid once', { timeout: 60_000 }, async () => {
  const { stdout } = await run(process.execPath, ['story.ts'], { cwd: folder })

  expect(stdout).toBe(readFileSync(new URL('expected.txt', folder), 'utf8'))
})
