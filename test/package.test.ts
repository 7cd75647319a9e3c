import { existsSync, globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import * as z from 'zod'
import * as api from '../src/index.ts'
import { exportsOf, passedOn } from './support/exports.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string): string => readFileSync(`${root}/${file}`, 'utf8')
const names = z.record(z.string(), z.string())
const manifest = z
  .object({
    exports: names,
    scripts: names,
    dependencies: names,
    devDependencies: names,
    optionalDependencies: names,
  })
  .parse(JSON.parse(read('package.json')))
const lock = z
  .object({ packages: z.record(z.string(), z.object({ resolved: z.string().optional() })) })
  .parse(JSON.parse(read('package-lock.json')))

describe('scripts', () => {
  const order = [
    'start',
    'gateway',
    'consume',
    'demo',
    'redrive',
    'operate',
    'example:bad-day',
    'kafka',
    'check',
    'format',
    'format:check',
    'lint',
    'typecheck',
    'dead',
    'arch',
    'test',
    'test:conformance',
    'test:lambda',
    'test:kafka',
    'bench',
    'prove',
    'docs',
    'build:lambda',
  ]

  it('are the table of contents, in order', () => {
    expect(Object.keys(manifest.scripts)).toEqual(order)
  })

  it('check runs everything that judges', () => {
    expect(manifest.scripts['check']?.split(' && ')).toEqual(
      ['format:check', 'lint', 'typecheck', 'dead', 'arch'].map((name) => `npm run ${name}`).concat('npm test'),
    )
  })

  it('run files that exist', () => {
    const files = Object.values(manifest.scripts).flatMap((script) => script.match(/\b[\w-]+\/[\w./-]+\.ts\b/g) ?? [])

    expect(files.length).toBeGreaterThan(4)
    expect(files.filter((file) => !existsSync(`${root}/${file}`))).toEqual([])
  })
})

describe('dependencies', () => {
  const all = { ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies }

  it('are pinned', () => {
    expect(Object.entries(all).filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([])
  })

  it('are each named in a decision', () => {
    const decisions = globSync('docs/decisions/*.md', { cwd: root })
      .map((file) => read(file))
      .join('\n')

    expect(Object.keys(all).filter((name) => !decisions.includes(`\`${name}\``))).toEqual([])
  })

  it('are locked without the address of a registry', () => {
    const entries = Object.entries(lock.packages)

    expect(entries.length).toBeGreaterThan(200)
    expect(entries.filter(([, { resolved }]) => resolved !== undefined)).toEqual([])
  })

  it('bring the Node that runs this test', () => {
    expect(new Set(Object.values(manifest.optionalDependencies)).size).toBe(1)
    expect(Number(process.versions.node.split('.')[0])).toBeGreaterThanOrEqual(24)
  })
})

describe('the public API', () => {
  const passed = passedOn(read('src/index.ts'))

  it('has paths that exist', () => {
    expect(Object.values(manifest.exports).filter((file) => !existsSync(`${root}/${file}`))).toEqual([])
  })

  it('was read whole', () => {
    expect(passed.map(({ name }) => name)).toEqual(expect.arrayContaining(Object.keys(api)))
    expect(passed.length).toBeGreaterThan(80)
  })

  it('has a doc comment on every export, as every source file has', () => {
    const files = globSync('{src,functions}/**/*.ts', { cwd: root })
    const bare = files.flatMap((file) => {
      const symbols = exportsOf(read(file))
      // A schema and the type of its values may share a name, and then a comment.
      const documented = new Set(symbols.filter((symbol) => symbol.documented).map(({ name }) => name))
      return symbols.filter(({ name }) => !documented.has(name)).map(({ name }) => `${file}: ${name}`)
    })

    expect(files.length).toBeGreaterThan(80)
    expect(bare).toEqual([])
  })

  it('names nothing twice and keeps types apart', () => {
    expect(new Set(passed.map(({ name }) => name)).size).toBe(passed.length)
    expect(read('src/index.ts')).not.toMatch(/export \*|export default/)
  })
})

describe('the reader of exports', () => {
  it('tells a documented export from a bare one', () => {
    const text =
      '/** Says so. */\nexport const a = 1\n\nexport function b() {}\n/**\n * Says so.\n */\nexport interface C {}\n'

    expect(exportsOf(text)).toEqual([
      { name: 'a', documented: true },
      { name: 'b', documented: false },
      { name: 'C', documented: true },
    ])
  })
})

describe('errors', () => {
  const classes = Object.entries(api).filter(
    ([name, value]) =>
      typeof value === 'function' && value.prototype instanceof api.KedgeError && name !== 'KedgeError',
  )
  const thrown = [
    new api.BrokerError('OFFSET_OUT_OF_RANGE', 'text'),
    new api.ConfigError('text'),
    new api.RecordError('text'),
    new api.HandlerError('HANDLER_FAILED', 'text'),
    new api.DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', 'text'),
    new api.IdempotencyError('LOCK_LOST', 'text'),
    new api.GatewayError('UNKNOWN_ROUTE', 'text'),
  ]

  it('were seen, every class', () => {
    expect(thrown.map((error) => error.constructor.name).sort()).toEqual(classes.map(([name]) => name).sort())
  })

  it.each(thrown.map((error) => [error.constructor.name, error] as const))(
    '%s has name, code and retriable',
    (name, error) => {
      expect(error).toBeInstanceOf(api.KedgeError)
      expect(error).toBeInstanceOf(Error)
      expect(error.name).toBe(name)
      expect(api.isErrorCode(error.code)).toBe(true)
      expect(error.retriable).toBe(api.isRetriableCode(error.code))
      expect(error.message).toBe('text')
    },
  )

  it('keep their cause', () => {
    const cause = new Error('first')

    expect(new api.BrokerError('NETWORK', 'text', { cause }).cause).toBe(cause)
    expect('cause' in new api.BrokerError('NETWORK', 'text')).toBe(false)
  })

  it('say of every code whether it is retriable, and what it means', () => {
    const codes = Object.entries({ ...api.ownErrors, ...api.kafkaErrors })
    const meanings: Readonly<Record<string, string>> = api.errorMeanings

    expect(codes.length).toBeGreaterThan(50)
    expect(codes.filter(([, row]) => typeof row.retriable !== 'boolean')).toEqual([])
    expect(codes.filter(([code]) => (meanings[code] ?? '').length < 10)).toEqual([])
    expect(Object.keys(meanings)).toHaveLength(codes.length)
  })
})
