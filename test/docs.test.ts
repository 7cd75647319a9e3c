import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { architectureDocument } from '../scripts/write-file-map.ts'
import { settingDescriptions } from '../src/config.ts'
import { exportsOf, passedOn } from './support/exports.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

/** Every file of the project that is not made by a tool, by its path from the project's folder. */
function projectFiles(folder = '.'): string[] {
  const made = new Set([
    '.git',
    ...read('.gitignore')
      .split('\n')
      .map((line) => line.replace(/\/$/, '')),
  ])
  return readdirSync(join(root, folder)).flatMap((name) => {
    if (made.has(name)) return []
    const file = posix.join(folder, name)
    return statSync(join(root, file)).isDirectory() ? projectFiles(file) : [file]
  })
}

const files = projectFiles()
const documents = files.filter((file) => file.endsWith('.md'))

/** The anchor that a heading gets where Markdown is shown. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/`/g, '')
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

/** A document without its code, in which links are text. */
function proseOf(file: string): string {
  return read(file)
    .replace(/^```[^]*?^```/gm, '')
    .replace(/`[^`\n]*`/g, (code) => code.replace(/[[\]()]/g, ' '))
}

describe('documents', () => {
  it('are all there', () => {
    const expected = ['README', 'ARCHITECTURE', 'PROTOCOL', 'CONTRIBUTING', 'CHANGELOG', 'SECURITY']
    const docs = ['docs/glossary.md', 'docs/configuration.md', 'docs/operations.md', 'docs/decisions/README.md']

    expect(documents).toEqual(expect.arrayContaining([...expected.map((name) => `${name}.md`), ...docs]))
    expect(read('LICENSE')).toContain('Apache License')
  })

  it('link to files and headings that exist', () => {
    const broken: string[] = []
    for (const file of documents) {
      for (const [, target = ''] of proseOf(file).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue
        const [path = '', anchor] = target.split('#')
        const linked = path === '' ? file : posix.join(dirname(file), path)
        const isThere = existsSync(join(root, linked))
        const headings = isThere && anchor !== undefined ? [...read(linked).matchAll(/^#+ (.*)$/gm)] : []
        if (!isThere || (anchor !== undefined && !headings.some(([, text = '']) => anchorOf(text) === anchor))) {
          broken.push(`${file}: ${target}`)
        }
      }
    }

    expect(broken).toEqual([])
  })

  it('name files that exist', () => {
    const missing = documents.flatMap((file) =>
      [...read(file).matchAll(/`((?:src|test|functions|scripts|bench|docs|examples)\/[\w./-]+)`/g)]
        .map(([, path = '']) => path)
        .filter((path) => !existsSync(join(root, path)))
        .map((path) => `${file}: ${path}`),
    )

    expect(missing).toEqual([])
  })

  it('name scripts that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const missing = documents.flatMap((file) =>
      [...read(file).matchAll(/\bnpm run ([\w:-]+)/g)]
        .map(([, name = '']) => name)
        .filter((name) => !Object.hasOwn(scripts, name))
        .map((name) => `${file}: ${name}`),
    )

    expect(missing).toEqual([])
  })

  it('import what the package exports', () => {
    const { exports } = JSON.parse(read('package.json')) as { exports: Record<string, string> }
    const wrong: string[] = []
    for (const file of documents) {
      for (const [, names = '', from = ''] of read(file).matchAll(
        /^import (?:type )?\{([^}]*)\} from '(kedge[^']*)'/gm,
      )) {
        const path = exports[from.replace('kedge', '.')]
        const text = path === undefined ? '' : read(path)
        const known = new Set([...exportsOf(text), ...passedOn(text)].map(({ name }) => name))
        wrong.push(
          ...names
            .split(',')
            .map((name) => name.replace('type ', '').trim())
            .filter((name) => !known.has(name))
            .map((name) => `${file}: ${name} from ${from}`),
        )
      }
    }

    expect(wrong).toEqual([])
  })

  it('name settings that exist', () => {
    const known = new Set(settingDescriptions.map(({ name }) => name))
    const unknown = documents.flatMap((file) =>
      (read(file).match(/\bKEDGE_[A-Z_]+\b/g) ?? [])
        .filter((name) => !known.has(name) && !name.endsWith('_'))
        .map((name) => `${file}: ${name}`),
    )

    expect(unknown).toEqual([])
  })
})

describe('ARCHITECTURE.md', () => {
  const text = read('ARCHITECTURE.md')

  it('has the map of files as they are (npm run docs)', () => {
    expect(text === architectureDocument()).toBe(true)
  })

  it('has every source file in its map', () => {
    const sources = files.filter((file) => /^(src|functions)\/.*\.ts$/.test(file))

    expect(sources.length).toBeGreaterThan(70)
    expect(sources.filter((file) => !text.includes(`\`${file}\``))).toEqual([])
  })
})

describe('pages of one kind', () => {
  const headingsOf = (file: string): string[] => [...read(file).matchAll(/^## (.*)$/gm)].map(([, text = '']) => text)

  it.each(documents.filter((file) => file.startsWith('docs/drivers/')))('%s has the headings of a driver', (file) => {
    const expected = ['Install', 'Open', 'Options', 'Guarantees', 'Limits', 'What it cannot do', 'How it is tested']

    expect(headingsOf(file).filter((heading) => expected.includes(heading))).toEqual(expected)
  })

  it.each(
    files.filter((file) =>
      /^src\/(brokers|dead-letters)\/(memory|log|rest|kafka|topic|sqs|sqlite|d1|s3|r2|queue)\.ts$/.test(file),
    ),
  )('%s has a page', (file) => {
    const page = file.replace('src/brokers/', '').replace('src/dead-letters/', 'dead-letters-').replace('.ts', '.md')

    expect(documents).toContain(`docs/drivers/${page}`)
  })

  it.each(documents.filter((file) => /^docs\/decisions\/\d/.test(file)))(
    '%s has the headings of a decision',
    (file) => {
      expect(headingsOf(file)).toEqual(['Context', 'Decision', 'Alternatives', 'Consequences'])
      expect(read('docs/decisions/README.md')).toContain(`(${posix.basename(file)})`)
    },
  )
})

describe('no file names the machine it was written on', () => {
  // Put together here, so that this file does not hold what it looks for.
  const machine = new RegExp(
    [
      String.raw`(?:^|[\s"'\`(=:])/(?:work|root|farm|tmp)/\w`,
      ['registry', 'npmjs'].join(String.raw`\.`),
      ['localhost', '4873'].join(':'),
    ].join('|'),
    'm',
  )

  it('a path of its own, or a registry', () => {
    const text = files.filter((file) => !/\.(png|zip|db)$/.test(file) && file !== 'package-lock.json')

    expect(files.length).toBeGreaterThan(150)
    expect(text.filter((file) => machine.test(read(file)))).toEqual([])
  })

  it('and the check would find one', () => {
    expect(machine.test(`cd ${['', 'work', 'project'].join('/')}`)).toBe(true)
    expect(machine.test('see src/work/x and https://host.example/tmp/x')).toBe(false)
  })
})
