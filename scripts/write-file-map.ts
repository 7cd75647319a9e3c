/**
 * Writes the map of files in `ARCHITECTURE.md` from the first sentence of each file's header. Run by `npm run docs`; a test
 * compares.
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const architecturePath = `${root}/ARCHITECTURE.md`

const BEGIN = "<!-- The map is written by scripts/write-file-map.ts (npm run docs). Change the files' headers. -->"
const END = '<!-- end of the map -->'

/** The parts of the map, in the order of a reader's way from a user's file down to the vocabulary. */
const parts: readonly (readonly [heading: string, pattern: string])[] = [
  ['Functions: what is deployed', 'functions/*.ts'],
  ['Runtimes: platforms', 'src/{config.ts,runtimes/*.ts}'],
  ['Gateway: the REST API', 'src/gateway/*.ts'],
  ['Gateway: one file for each group of calls', 'src/gateway/routes/*.ts'],
  ['Operator calls: behaviour over REST', 'src/operator/*.ts'],
  ['Brokers: drivers', 'src/brokers/**/*.ts'],
  ['Dead-letter stores: drivers', 'src/dead-letters/*.ts'],
  ['Idempotency stores: drivers', 'src/idempotency/*.ts'],
  ['Behaviour: producing, routing, consuming', 'src/{producer,router,route-table,option-names,app,consumer}.ts'],
  ['Behaviour: inside a run', 'src/consumer/*.ts'],
  ['Behaviour: redrive', 'src/{redrive.ts,redrive/*.ts}'],
  ['Behaviour: operations', 'src/{operations.ts,operations/*.ts}'],
  ['Behaviour: shared by redrive and operations', 'src/{existing-group,group-lock}.ts'],
  ['The embedded log', 'src/log/*.ts'],
  ['Ports', 'src/{broker,dead-letter,dead-letter-fingerprint,idempotency}.ts'],
]
const LAST_HEADING = 'Vocabulary'

/** ARCHITECTURE.md with its map as the files are now. */
export function architectureDocument(): string {
  const text = readFileSync(architecturePath, 'utf8')
  const from = text.indexOf(BEGIN)
  const to = text.indexOf(END)
  if (from < 0 || to < from) throw new Error('ARCHITECTURE.md has lost the marks of its map.')
  return `${text.slice(0, from)}${BEGIN}\n\n${fileMap()}\n${text.slice(to)}`
}

function fileMap(): string {
  const placed = new Set<string>()
  const sections = parts.map(([heading, pattern]) => {
    const files = globSync(pattern, { cwd: root }).sort()
    for (const file of files) placed.add(file)
    return section(heading, files)
  })
  const rest = globSync('src/**/*.ts', { cwd: root })
    .filter((file) => !placed.has(file))
    .sort()
  return [...sections, section(LAST_HEADING, rest)].join('\n')
}

function section(heading: string, files: readonly string[]): string {
  const rows = files.map((file) => `| [\`${file}\`](${file}) | ${firstSentence(file)} |`)
  return `**${heading}**\n\n| file | what it is |\n| --- | --- |\n${rows.join('\n')}\n`
}

function firstSentence(file: string): string {
  const comment = /^\/\*\*(.*?)\*\//s.exec(readFileSync(`${root}/${file}`, 'utf8'))?.[1]
  if (comment === undefined) throw new Error(`${file} does not begin with a comment that says what it is.`)
  const text = comment.replace(/\n \*/g, ' ').replace(/\s+/g, ' ').trim()
  return (/^.*?[.](?= |$)/.exec(text)?.[0] ?? text).replaceAll('|', '\\|')
}

if (import.meta.main) writeFileSync(architecturePath, architectureDocument())
