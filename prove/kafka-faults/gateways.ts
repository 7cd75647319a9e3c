/** Gateways as processes of their own, which are killed and come back at the same address, and a dumb balancer before them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** One gateway. */
export interface GatewayProcess extends AsyncDisposable {
  readonly url: string
  /** What it said when it ended by itself, which it should never do. */
  readonly ended: string | undefined
  /** Resolves when it is ready. */
  start(): Promise<void>
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>
}

const START_LIMIT_MS = 30_000
const program = join(import.meta.dirname, '..', '..', 'functions', 'gateway.ts')

/** A gateway over a Kafka cluster that is not started yet. */
export async function gatewayProcess(bootstrapServers: string): Promise<GatewayProcess> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  let errors = ''
  let ended: string | undefined
  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  return {
    url,
    get ended() {
      return ended
    },
    async start() {
      const started = spawn(process.execPath, [program], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, KEDGE_BROKER: `kafka://${bootstrapServers}`, KEDGE_GATEWAY_PORT: String(port) },
      })
      child = started
      const end = (): void => void started.kill('SIGKILL')
      process.once('exit', end)
      started.once('exit', () => process.off('exit', end))
      started.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-4_000)))
      started.once('exit', (status, signal) => {
        if (signal === null) ended = `status ${status}: ${errors}`
      })
      const deadline = performance.now() + START_LIMIT_MS
      while (!(await isReady(url))) {
        // Killed on purpose while it was starting.
        if (started.signalCode !== null) return
        if (started.exitCode !== null || performance.now() > deadline) {
          throw new Error(`The gateway did not start: ${errors}`)
        }
        await sleep(50)
      }
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

/** A `fetch` that sends each request to the next of the addresses, whether anything is there or not. */
export function roundRobin(urls: readonly string[]): typeof globalThis.fetch {
  let turn = 0
  return async (input, init) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input)
    turn += 1
    return await fetch(`${urls[turn % urls.length]}${pathname}${search}`, init)
  }
}

async function isReady(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/readyz`)).ok
  } catch {
    return false
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
