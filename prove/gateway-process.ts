/** A gateway as a process of its own, which is killed and comes back at the same address. */
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
  /**
   * Resolves when it is ready. `under` is a program that runs it, with its arguments, and in whose place it is, as strace -D is.
   * @throws when it is not ready in time, or ends
   */
  start(under?: readonly string[]): Promise<void>
  /** Sends SIGKILL, or another signal, and resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>
}

const START_LIMIT_MS = 30_000
const program = join(import.meta.dirname, '..', 'functions', 'gateway.ts')

/** A gateway with these settings, and a free port, that is not started yet. */
export async function gatewayProcess(settings: Readonly<Record<string, string>>): Promise<GatewayProcess> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child: ChildProcess | undefined
  let errors = ''
  let ended: string | undefined
  let isToEnd = false
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    isToEnd = true
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }
  return {
    url,
    get ended() {
      return ended
    },
    async start(under = []) {
      const [command, ...args] = [...under, process.execPath, program]
      const started = spawn(command ?? process.execPath, args, {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, ...settings, KEDGE_GATEWAY_PORT: String(port) },
      })
      child = started
      isToEnd = false
      const end = (): void => void started.kill('SIGKILL')
      process.once('exit', end)
      started.once('exit', () => process.off('exit', end))
      started.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-4_000)))
      started.once('exit', (status, signal) => {
        if (signal === null && !isToEnd) ended = `status ${status}: ${errors}`
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
    [Symbol.asyncDispose]: () => kill(),
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
