/** `npm start`, as a process: what it prints, that it survives a restart, and that nothing of it stays. */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { until } from '../support/until.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 90_000 })

const dataDir = mkdtempSync(join(tmpdir(), 'kedge-start-test-'))
const home = mkdtempSync(join(tmpdir(), 'kedge-start-home-'))
afterAll(() => {
  for (const folder of [dataDir, home]) rmSync(folder, { recursive: true })
})

interface Started extends AsyncDisposable {
  readonly pid: number
  said(): string
  url(name: 'gateway' | 'worker'): string
  ended(): Promise<number | null>
}

function start(env: Record<string, string> = {}, ...args: string[]): Started {
  const child = spawn(process.execPath, ['scripts/start.ts', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: home,
      KEDGE_DATA: dataDir,
      KEDGE_GATEWAY_PORT: '0',
      KEDGE_WORKER_PORT: '0',
      ...env,
    },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => (said += String(text)))
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return {
    pid: child.pid ?? 0,
    said: () => said,
    url: (name) => new RegExp(`${name} +(http://\\S+)`).exec(said)?.[1] ?? '',
    ended: () => ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

async function ready(started: Started): Promise<void> {
  await until(() => started.said().includes('Ctrl-C ends it'), { what: started.said(), timeoutMs: 60_000 })
}

async function says(started: Started, text: string): Promise<void> {
  await until(() => started.said().includes(text), {
    what: `${JSON.stringify(text)} in:\n${started.said()}`,
    timeoutMs: 20_000,
  })
}

async function produce(base: string, value: unknown): Promise<number> {
  const response = await fetch(`${base}/produce/orders`, { method: 'POST', body: JSON.stringify({ value }) })
  await response.body?.cancel()
  return response.status
}

/** Every live process below a process, where the system tells. */
function descendants(pid: number): number[] {
  if (!existsSync('/proc')) return []
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), parent: parentOf(name) }))
  const below = (of: number): number[] =>
    parents.filter(({ parent }) => parent === of).flatMap((child) => [child.pid, ...below(child.pid)])
  return below(pid)
}

function parentOf(pid: string): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return state === 'Z' ? 0 : Number(parent)
  } catch {
    // It ended while the list was read.
    return 0
  }
}

function isAlive(pid: number): boolean {
  return parentOf(String(pid)) !== 0
}

test('handles what is produced, dead-letters what it cannot handle, and leaves no process behind', async () => {
  await using started = start()
  await ready(started)

  const statuses = [
    await produce(started.url('worker'), { id: 'a1', total: 9.5 }),
    await produce(started.url('worker'), { id: 7 }),
    await produce(started.url('gateway'), 'no order'),
  ]
  await says(started, 'handled orders partition 0 offset 0')
  await says(started, 'dead-lettered orders partition 0 offset 1')
  const processes = descendants(started.pid)
  process.kill(started.pid, 'SIGINT')
  const status = await started.ended()

  expect(statuses).toEqual([200, 400, 200])
  expect(status).toBe(0)
  expect(processes.length).toBeGreaterThan(0)
  await until(() => !processes.some(isAlive), { what: 'the end of all processes' })
  expect(started.said()).not.toMatch(/warn/i)
  expect(readdirSync(home)).toEqual([])
})

test('goes on after a restart where it stopped, at once', async () => {
  await using started = start()
  await ready(started)

  await produce(started.url('worker'), { id: 'a2', total: 1 })

  await says(started, 'handled orders partition 0 offset 2')
  expect(started.said()).not.toContain('offset 0')
})

test('a port in use is named with the setting that changes it, and nothing is left running', async () => {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  // A TCP server that listens has an address with a port.
  const port = String((server.address() as AddressInfo).port)

  await using started = start({ KEDGE_WORKER_PORT: port })
  const status = await started.ended()
  server.close()

  expect(status).toBe(1)
  expect(started.said()).toBe(
    `Cannot start:\n  port ${port} is in use: end what listens there, or set KEDGE_WORKER_PORT to another port\n`,
  )
})

test('wrong settings are named before anything starts', async () => {
  await using started = start({ KEDGE_GATEWAY_PRT: '1', KEDGE_BROKER: 'redis' })

  expect(await started.ended()).toBe(1)
  expect(started.said()).toContain('2 settings are wrong')
  expect(started.said()).toContain('did you mean KEDGE_GATEWAY_PORT?')
})

test('--help says what it does', async () => {
  await using started = start({}, '--help')

  expect(await started.ended()).toBe(0)
  expect(started.said()).toContain('Usage: npm start')
})
