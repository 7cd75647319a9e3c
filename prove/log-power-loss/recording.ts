/**
 * What a program did to the files of a folder, in order, recorded by strace: creations, writes, truncations, removals and syncs, and
 * between them the lines that it told of itself.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Told } from './told.ts'

/** One thing that was done. A `file` is one creation of a name: the same name made again is another file. */
export type Deed =
  | { readonly what: 'create'; readonly name: string; readonly file: number }
  | { readonly what: 'remove'; readonly name: string }
  | { readonly what: 'write'; readonly file: number; readonly offset: number; readonly bytes: Buffer }
  | { readonly what: 'truncate'; readonly file: number; readonly length: number }
  | { readonly what: 'sync'; readonly file: number }
  | { readonly what: 'sync folder' }
  | { readonly what: 'told'; readonly line: Told }

/** What to record. */
export interface RecordingOptions {
  /** An empty folder for the log, and what is beside it. */
  readonly folder: string
  /** The program and its arguments, after the log's folder and the file that it tells lines in. */
  readonly program: string
  readonly args: readonly string[]
}

const LOG = 'log'
const NAMES = ['kedge.db', 'kedge.db-wal', 'kedge.db-journal'] as const
const calls =
  'openat,open,creat,pwrite64,pwritev,write,writev,ftruncate,fsync,fdatasync,unlink,unlinkat,rename,renameat2,fallocate'
const MOST_STRING = 4_000_000

/** Runs the program under strace. @throws where it fails, or does something to a file that is not understood here */
export async function recordProgram({ folder, program, args }: RecordingOptions): Promise<Deed[]> {
  const log = join(folder, LOG)
  const told = join(folder, 'told')
  const trace = join(folder, 'trace')
  const paths = [told, log, ...NAMES.map((name) => join(log, name))].flatMap((path) => ['-P', path])
  const strace = [
    '-ff',
    '-qq',
    '-y',
    '-xx',
    '-s',
    String(MOST_STRING),
    '--seccomp-bpf',
    '-e',
    `trace=${calls}`,
    ...paths,
  ]
  const child = spawn('strace', [...strace, '-o', trace, process.execPath, program, log, told, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const [status] = (await once(child, 'exit')) as [number | null]
  if (status !== 0) throw new Error(`The recorded program ended with ${status}: ${errors}`)
  const traces = readdirSync(folder).filter((name) => name.startsWith('trace.'))
  const written = traces.map((name) => join(folder, name)).filter((file) => statSync(file).size > 0)
  const [file] = written
  // In one thread what was done has one order.
  if (file === undefined || written.length > 1) {
    throw new Error(`${written.length} threads of the recorded program wrote to its files.`)
  }
  return await deedsOf(createInterface({ input: createReadStream(file, 'latin1') }), log, told)
}

async function deedsOf(lines: AsyncIterable<string>, log: string, told: string): Promise<Deed[]> {
  const deeds: Deed[] = []
  const current = new Map<string, number>()
  let files = 0
  const fileOf = (path: string): number => {
    const file = current.get(path)
    if (file === undefined) throw new Error(`${path} was written before it was made.`)
    return file
  }
  for await (const line of lines) {
    const call = parse(line)
    if (call === undefined) continue
    const { name, path, text, numbers } = call
    if (path === told) {
      if (name === 'write' && text !== undefined) {
        deeds.push({ what: 'told', line: JSON.parse(text.toString('utf8')) as Told })
      }
    } else if (name === 'openat') {
      if (!line.includes('O_CREAT') || current.has(path)) continue
      files += 1
      current.set(path, files)
      deeds.push({ what: 'create', name: path.slice(log.length + 1), file: files })
    } else if (name === 'unlink') {
      current.delete(path)
      deeds.push({ what: 'remove', name: path.slice(log.length + 1) })
    } else if (name === 'pwrite64' && text !== undefined) {
      const [length = -1, offset = 0] = numbers
      if (text.length !== length) throw new Error(`A write of ${length} bytes was recorded with ${text.length}.`)
      deeds.push({ what: 'write', file: fileOf(path), offset, bytes: text })
    } else if (name === 'ftruncate') {
      deeds.push({ what: 'truncate', file: fileOf(path), length: numbers[0] ?? 0 })
    } else if (name === 'fsync' || name === 'fdatasync') {
      deeds.push(path === log ? { what: 'sync folder' } : { what: 'sync', file: fileOf(path) })
    } else throw new Error(`The recorded program did what is not understood: ${line.slice(0, 200)}`)
  }
  return deeds
}

interface TracedCall {
  readonly name: string
  readonly path: string
  /** What was written. */
  readonly text: Buffer | undefined
  /** Arguments behind the path or text. */
  readonly numbers: readonly number[]
}

/** A line of strace, or undefined for a call that failed and for a line about something else. */
function parse(line: string): TracedCall | undefined {
  const name = /^(\w+)\(/.exec(line)?.[1]
  const failed = / = -1 /.test(line.slice(-200))
  if (name === undefined || failed) return undefined
  const strings = [...line.matchAll(/"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?/g)]
  if (strings.some(([, , cut]) => cut !== undefined)) throw new Error('A write was too long to be recorded.')
  const [first] = strings
  const path = name === 'openat' || name === 'unlink' ? first?.[1] : /<((?:\\x[0-9a-f]{2})*)>/.exec(line)?.[1]
  const behind = line.slice(first === undefined ? line.indexOf('>') : (first.index ?? 0) + first[0].length)
  const numbers = [...behind.slice(0, behind.lastIndexOf(')')).matchAll(/, (\d+)/g)].map(([, digits]) => Number(digits))
  return { name, path: bytesOf(path ?? '').toString('utf8'), text: first && bytesOf(first[1] ?? ''), numbers }
}

function bytesOf(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(String.raw`\x`, ''), 'hex')
}
