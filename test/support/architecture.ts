/**
 * The rules of ARCHITECTURE.md about who may import what, as a function over the text of files. It knows nothing of the
 * disk, so that a test can hand it a file that breaks a rule.
 *
 * Imports are read from the formatted text: a static import stands at the start of its line. Uses of the platform's
 * globals are found by esbuild, which knows a global from a parameter, a property, a comment and a string.
 */
import { posix } from 'node:path'
import { transformSync } from 'esbuild'

/** A part of the source, with what lies in it and what it may reach. */
interface Area {
  readonly name: string
  /** An import may point to an area of a lower rank. */
  readonly rank: number
  readonly files: RegExp
  /** Areas of the same rank that it may import too. Its own files it always may. */
  readonly beside?: readonly string[]
  /** Areas of a lower rank that it may not import. */
  readonly never?: readonly string[]
}

const vocabulary =
  'record|topic|errors|error-meanings|kafka-errors|backoff|clock|random|logger|headers|known-texts|partitioner|standard-schema|base64|sticky-assignor|return-topic|digest|time-limit'

const areas: readonly Area[] = [
  { name: 'vocabulary', rank: 0, files: new RegExp(`^src/(${vocabulary})\\.ts$`) },
  {
    name: 'ports',
    rank: 1,
    files:
      /^src\/(broker|broker-validation|dead-letter|dead-letter-fingerprint|append-once|fetch-from|idempotency)\.ts$/,
  },
  { name: 'log', rank: 1, files: /^src\/log\//, beside: ['ports'] },
  {
    name: 'behaviour',
    rank: 2,
    files:
      /^src\/((producer|consumer|router|route-table|option-names|app|handler-errors|redrive|operations|group-lock|existing-group)\.ts$|(consumer|redrive|operations)\/)/,
  },
  { name: 'operator', rank: 3, files: /^src\/operator\//, beside: ['gateway'], never: ['log'] },
  { name: 'gateway', rank: 3, files: /^src\/gateway\//, never: ['log', 'behaviour'] },
  { name: 'brokers', rank: 3, files: /^src\/brokers\//, never: ['behaviour'] },
  { name: 'dead-letters', rank: 3, files: /^src\/dead-letters\//, never: ['log', 'behaviour'] },
  { name: 'idempotency', rank: 3, files: /^src\/idempotency\//, never: ['log', 'behaviour'] },
  { name: 'runtimes', rank: 4, files: /^src\/(runtimes\/|config\.ts$)/ },
  // Beside the ladder: the public API names what users may import, and nothing of ours imports it.
  { name: 'public API', rank: 5, files: /^src\/index\.ts$/ },
  { name: 'functions', rank: 5, files: /^functions\// },
]

/** Every package that source may import, and where. What is not listed may not be imported at all. */
const packages: readonly { readonly name: RegExp; readonly files: RegExp }[] = [
  { name: /^hono$|^hono\/|^@hono\//, files: /^src\/(gateway|runtimes)\// },
  {
    name: /^zod$/,
    files: /^src\/(gateway|operator)\/|^src\/config\.ts$|^src\/runtimes\/lambda-redrive\.ts$|^functions\/app\.ts$/,
  },
  { name: /^@upstash\/kafka$/, files: /^src\/brokers\/rest(\.ts$|\/)/ },
  { name: /^@platformatic\/kafka$/, files: /^src\/brokers\/kafka(\.ts$|\/)/ },
  { name: /^@aws-sdk\/client-sqs$/, files: /^src\/dead-letters\/sqs[a-z-]*\.ts$/ },
  { name: /^@aws-sdk\/client-s3$/, files: /^src\/dead-letters\/s3\.ts$/ },
  { name: /^@aws-sdk\/client-dynamodb$/, files: /^src\/idempotency\/dynamodb[a-z-]*\.ts$/ },
  // Types only: there is no code in a package of this name.
  { name: /^aws-lambda$/, files: /^src\/runtimes\/lambda[a-z-]*\.ts$/ },
  {
    name: /^node:/,
    files:
      /^src\/runtimes\/|^src\/config\.ts$|^functions\/|^src\/brokers\/log\.ts$|^src\/log\/node-sqlite\.ts$|^src\/(dead-letters|idempotency)\/sqlite\.ts$/,
  },
]

/** Time, chance, network and environment: they arrive as options everywhere but here. */
const globals: readonly { readonly name: string; readonly files?: RegExp }[] = [
  { name: 'Date.now', files: /^src\/clock\.ts$/ },
  { name: 'performance', files: /^src\/clock\.ts$/ },
  { name: 'setTimeout', files: /^src\/clock\.ts$/ },
  { name: 'setInterval' },
  // The turn of the event loop in which concurrent writers share a transaction.
  { name: 'setImmediate', files: /^src\/brokers\/(log|kafka)\.ts$/ },
  { name: 'AbortSignal.timeout' },
  { name: 'Math.random', files: /^src\/random\.ts$/ },
  { name: 'crypto.randomUUID', files: /^src\/random\.ts$/ },
  { name: 'crypto.getRandomValues' },
  { name: 'fetch', files: /^src\/brokers\/rest(\.ts$|\/)/ },
  { name: 'globalThis.fetch', files: /^src\/brokers\/rest(\.ts$|\/)/ },
  { name: 'globalThis' },
  { name: 'process' },
  { name: 'console' },
]

/** Names that say nothing. `test/types` is the exception: what it tests are types. */
const vagueNames = /(^|\/)(utils?|helpers?|common|types?|lib|misc|shared)(\.[a-z.]+)?(\/|$)/

/** One broken rule. */
export interface Violation {
  /** Short name of the rule. */
  readonly rule:
    | 'area'
    | 'direction'
    | 'driver'
    | 'package'
    | 'global'
    | 'file name'
    | 'barrel'
    | 'default export'
    | 'length'
  readonly file: string
  readonly detail: string
}

/** Lines over which a file has to say at its top why it is one thing. */
const MAX_LINES = 400

/** Every broken rule in the files, which are given by their path from the project's folder. */
export function violations(files: ReadonlyMap<string, string>): Violation[] {
  const found: Violation[] = []
  for (const [file, text] of files) {
    const say = (rule: Violation['rule'], detail: string): void => {
      found.push({ rule, file, detail })
    }
    if (vagueNames.test(file.replace(/^test\/types\//, ''))) say('file name', 'the name does not say what is in it')
    if (!/^(src|functions)\//.test(file)) continue
    const area = areaOf(file)
    if (area === undefined) {
      say('area', 'it is in no area: give it a rank in test/support/architecture.ts and ARCHITECTURE.md')
      continue
    }
    for (const specifier of importsOf(text)) {
      if (specifier.startsWith('.')) {
        const target = posix.join(posix.dirname(file), specifier)
        const problem = directionProblem(area, target)
        if (problem !== undefined) say('direction', problem)
        if (area.rank < 4 && isDriver(target, files.get(target))) say('driver', `it imports the driver ${target}`)
      } else if (!packages.some(({ name, files: allowed }) => name.test(specifier) && allowed.test(file))) {
        say('package', `it may not import ${specifier}`)
      }
    }
    if (area.rank < 4) for (const name of globalsIn(file, text)) say('global', `it uses ${name}`)
    if (file !== 'src/index.ts' && /^export (type )?(\*|\{[^}]*\}) (as \w+ )?from /m.test(text)) {
      say('barrel', 'it exports what another file defines')
    }
    if (file !== 'functions/worker.ts' && /^export default |^export \{[^}]*\bas default\b/m.test(text)) {
      say('default export', 'exports are named')
    }
    if (text.split('\n').length > MAX_LINES && !text.startsWith('/**')) {
      say('length', `it has over ${MAX_LINES} lines and does not begin with why it is one thing`)
    }
  }
  return found
}

function areaOf(file: string): Area | undefined {
  return areas.find((area) => area.files.test(file))
}

function directionProblem(from: Area, target: string): string | undefined {
  const to = areaOf(target)
  if (to === undefined) return `it imports ${target}, which is in no area`
  if (to === from) return undefined
  if (to.name === 'public API') return `it imports the public API: import the file that defines the name`
  if (from.never?.includes(to.name) === true) return `${from.name} may not import ${target} (${to.name})`
  if (to.rank < from.rank || from.beside?.includes(to.name) === true) return undefined
  return `${from.name} (rank ${from.rank}) may not import ${target} (${to.name}, rank ${to.rank})`
}

/** A driver makes a port's object. The parts that it shares with others of its folder do not. */
function isDriver(file: string, text: string | undefined): boolean {
  return (
    /^src\/(brokers|dead-letters|idempotency)\//.test(file) &&
    /^export (async )?function \w+\((?:(?!\n\})[^])*?\): (Promise<)?(Broker|DeadLetterStore|IdempotencyStore)>? \{/m.test(
      text ?? '',
    )
  )
}

function importsOf(text: string): string[] {
  const patterns = [/^(?:import|export)\b[^'"`]*?\bfrom '([^']+)'/gm, /^import '([^']+)'/gm, /\bimport\(\s*'([^']+)'/g]
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].map(([, specifier = '']) => specifier))
}

const markOf = (index: number): string => `__kedge_global_${index}__`
const define = Object.fromEntries(globals.map(({ name }, index) => [name, markOf(index)]))

function globalsIn(file: string, text: string): string[] {
  const { code } = transformSync(text, { loader: 'ts', format: 'esm', define })
  const used = globals.filter(({ files }, index) => code.includes(markOf(index)) && files?.test(file) !== true)
  const names = used.map(({ name }) => name)
  return /\bnew Date\(\)/.test(code) ? [...names, 'new Date()'] : names
}
