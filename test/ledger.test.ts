/** The ledger of bugs: every command in it can be run, and names what exists. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const ledger = readFileSync(join(root, 'docs', 'ledger.md'), 'utf8')
const commands = [...ledger.matchAll(/`(np[mx] [^`]+)`/g)].map(([, command = '']) => command)
const rows = ledger.split('\n').filter((line) => line.startsWith('| ') && !/^\| (bug|---) /.test(line))

/** The text of all tests in a file or folder, and of the suites that a driver's test opens. */
function testsIn(path: string): string {
  const whole = join(root, path)
  if (!statSync(whole).isDirectory()) return readFileSync(whole, 'utf8')
  return readdirSync(whole, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(whole, name), 'utf8'))
    .join('\n')
}

function problemOf(command: string): string | undefined {
  const proof = /^npm run prove -- ([\w-]+)( --seed \d+)?( --quick)?$/.exec(command)?.[1]
  if (proof !== undefined) return proofs().includes(proof) ? undefined : `there is no proof ${proof}`
  const [, path = '', name = ''] = /^npx vitest run ([\w/.-]+) -t '([^']+)'$/.exec(command) ?? []
  if (path === '') return 'it is no command that is known here'
  if (!existsSync(join(root, path))) return `there is no ${path}`
  const suites = path.startsWith('test/brokers') ? testsIn('test/conformance') : ''
  return `${testsIn(path)}\n${suites}`.includes(name) ? undefined : `there is no test called so in ${path}`
}

let known: readonly string[] | undefined
function proofs(): readonly string[] {
  known ??= [
    ...execFileSync(process.execPath, [join(root, 'prove', 'run.ts'), '--help'], { encoding: 'utf8' }).matchAll(
      /^ {2}([a-z][a-z-]*) {2,}/gm,
    ),
  ].map(([, name = '']) => name)
  return known
}

describe('the ledger of bugs', () => {
  test('shows every bug by a command', () => {
    expect(rows.length).toBeGreaterThan(5)
    expect(rows.filter((row) => !row.includes('`np'))).toEqual([])
  })

  test.each(commands)('%s exists', (command) => {
    expect(problemOf(command)).toBeUndefined()
  })

  test('would miss what does not exist', () => {
    expect(problemOf('npm run prove -- nothing')).toContain('no proof')
    expect(problemOf("npx vitest run test/log/none.test.ts -t 'x'")).toContain('no test/log/none.test.ts')
    expect(problemOf("npx vitest run test/log/kill.test.ts -t 'never called so'")).toContain('no test called so')
    expect(problemOf('npm run anything')).toContain('no command')
  })
})

describe('the proofs', () => {
  test('are the ones that the document and CI name', () => {
    const document = readFileSync(join(root, 'docs', 'proofs.md'), 'utf8')
    const ci = readFileSync(join(root, '.ci', 'run'), 'utf8')

    expect([...document.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name)).toEqual(proofs())
    expect(proofs().filter((name) => !ci.includes(name))).toEqual([])
  })
})
