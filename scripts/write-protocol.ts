/**
 * Writes the tables of `PROTOCOL.md` that code knows: calls, limits, errors. Run by `npm run docs`; a test compares.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../src/clock.ts'
import { errorMeanings } from '../src/error-meanings.ts'
import { type ErrorCode, isRetriableCode } from '../src/errors.ts'
import { statusOfCode } from '../src/gateway/errors.ts'
import { gatewayLimits, limitNames, type GatewayLimits, type RefusingLimit } from '../src/gateway/limits.ts'
import type { Route } from '../src/gateway/route.ts'
import { routeTable } from '../src/gateway/routes.ts'
import { operatorRoutes } from '../src/operator/routes.ts'
import { systemRandom } from '../src/random.ts'

const protocolPath = fileURLToPath(new URL('../PROTOCOL.md', import.meta.url))

/** What each limit bounds, and the status of its refusal; a cap has none. */
const limits: Readonly<Record<keyof GatewayLimits, readonly [what: string, status: string]>> = {
  bodyBytes: ['bytes of a body', '413'],
  batchRecords: ['records in one produce, or entries of any list that is a whole body', '413'],
  recordBytes: ["bytes of a record's key, value and headers, whatever its topic allows", '413'],
  recordHeaders: ['headers of a record', '413'],
  jsonDepth: ['levels of nesting in a JSON body', '400'],
  jsonItems: ['items of one list, or members of one object, in a JSON body', '413'],
  httpHeaders: ['header lines of a request', '431'],
  httpHeaderBytes: ['bytes of the request line and headers', '431'],
  waitingPolls: ['consumes and fetches that wait at once', '429'],
  maxWaitMs: ['milliseconds a consume or fetch waits', 'shortened'],
  maxRecords: ['records in an answer', 'shortened'],
  maxBytes: ['bytes of keys, values and headers in an answer', 'shortened'],
}

const tables: Readonly<Record<string, () => string>> = { calls, limits: limitTable, errors: errorTable }

/** PROTOCOL.md with its tables as the code is now. */
export function protocolDocument(): string {
  let text = readFileSync(protocolPath, 'utf8')
  for (const [name, table] of Object.entries(tables)) {
    const begin = `<!-- ${name}: written by scripts/write-protocol.ts (npm run docs) -->`
    const end = `<!-- end of ${name} -->`
    const from = text.indexOf(begin)
    const to = text.indexOf(end)
    if (from < 0 || to < from) throw new Error(`PROTOCOL.md has lost the marks of its table of ${name}.`)
    text = `${text.slice(0, from)}${begin}\n\n${table()}\n\n${text.slice(to)}`
  }
  return text
}

/** Every call that a gateway may have. They are to be read here, and not to be served. */
export function contractRoutes(): readonly Route[] {
  const unserved = (): Promise<never> => Promise.reject(new Error('Nothing is served here.'))
  const services = { openDeadLetters: unserved, appOf: unserved, clock: systemClock, random: systemRandom }
  return routeTable(undefined, operatorRoutes({ ...services, log: () => undefined }))
}

function calls(): string {
  const rows = contractRoutes().map(
    ({ methods, path, summary }) => `| ${methods.join(', ')} | \`${path.replace('+}', '}')}\` | ${summary} |`,
  )
  return ['| methods | path | what it does |', '| --- | --- | --- |', ...rows].join('\n')
}

function limitTable(): string {
  const rows = Object.entries(limits).map(([key, [what, status]]) => {
    // The keys of a record over all limits are the limits.
    const name = key as keyof GatewayLimits
    const wire = name in limitNames ? `\`${limitNames[name as RefusingLimit]}\`` : '-'
    return `| ${wire} | ${what} | ${gatewayLimits[name]} | ${status} |`
  })
  return ['| `Kedge-Limit` | what it bounds | default | beyond it |', '| --- | --- | --- | --- |', ...rows].join('\n')
}

function errorTable(): string {
  const rows = Object.entries(errorMeanings).flatMap(([name, meaning]) => {
    // The keys of the table are the codes.
    const code = name as ErrorCode
    const status = statusOfCode[code]
    return status === null
      ? []
      : [{ status, row: `| ${status} | \`${code}\` | ${isRetriableCode(code) ? 'yes' : 'no'} | ${meaning} |` }]
  })
  const sorted = rows.toSorted((a, b) => a.status - b.status).map(({ row }) => row)
  return ['| status | `Kedge-Error` | retriable | meaning |', '| --- | --- | --- | --- |', ...sorted].join('\n')
}

if (import.meta.main) writeFileSync(protocolPath, protocolDocument())
