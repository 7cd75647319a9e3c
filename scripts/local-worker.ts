/**
 * The Worker on this machine, in real workerd: `wrangler dev` as a child process of its own process group, so that a
 * signal for this process does not reach it first and nothing of it stays when it is closed. What wrangler says of itself
 * is kept back; what the functions write comes out line by line.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const wrangler = join(root, 'node_modules/wrangler/bin/wrangler.js')

/** Which Worker to run, and what it is told. */
export interface LocalWorkerOptions {
  /** Entry point, from the project's folder. @default what wrangler.toml names */
  readonly main?: string
  /** Wrangler's configuration, from the project's folder. @default wrangler.toml */
  readonly config?: string
  /** @default 0: a free one */
  readonly port?: number
  /** Variables of the Worker, over those of wrangler.toml and a `.dev.vars` beside it. */
  readonly vars: Readonly<Record<string, string>>
  /** Ends the Worker when aborted, also while it is starting. */
  readonly signal?: AbortSignal
  /** Gets every line the functions write. */
  readonly onLine: (line: string) => void
  /** Called after a change of the sources has been taken over. */
  readonly onReload?: () => void
}

/** A running Worker. */
export interface LocalWorker extends AsyncDisposable {
  readonly url: string
  /** Resolves when the process has ended, asked or not. */
  readonly ended: Promise<void>
  /** Runs the scheduled function once, as cron would, and says whether it ended well. */
  tick(signal?: AbortSignal): Promise<boolean>
  close(): Promise<void>
}

/** Longest wait for workerd to serve, and for it to end. */
const READY_MS = 40_000
const END_MS = 1_500

/** Starts the Worker and resolves when it serves. Rejects with what wrangler wrote when it does not. */
export async function openLocalWorker(options: LocalWorkerOptions): Promise<LocalWorker> {
  const folder = mkdtempSync(join(tmpdir(), 'kedge-worker-'))
  const envFile = join(folder, 'vars.env')
  writeFileSync(envFile, dotenv(options.vars), { mode: 0o600 })

  const child = spawn(process.execPath, [wrangler, 'dev', ...flags(options, folder, envFile)], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment(folder),
  })
  // Whatever ends this process, nothing stays of the Worker.
  const onExit = (): void => {
    killGroup(child)
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', onExit)
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => {
      process.off('exit', onExit)
      rmSync(folder, { recursive: true, force: true })
      resolve()
    })
  })

  let isClosing = false
  async function close(): Promise<void> {
    isClosing = true
    await end(child, ended)
  }

  options.signal?.addEventListener('abort', () => void close())
  try {
    const url = await ready(child, ended, options, () => isClosing)
    return { url, ended, tick: (signal) => tick(url, signal), close, [Symbol.asyncDispose]: close }
  } catch (failure) {
    await close()
    throw failure
  }
}

/** Whether a server could listen on the port of 127.0.0.1 now. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}

function flags(
  { main, config = 'wrangler.toml', port = 0 }: LocalWorkerOptions,
  folder: string,
  envFile: string,
): string[] {
  const devVars = join(root, '.dev.vars')
  const entry = main === undefined ? [] : [main]
  const envFiles = existsSync(devVars) ? ['--env-file', devVars, '--env-file', envFile] : ['--env-file', envFile]
  const listen = ['--ip', '127.0.0.1', '--port', String(port), '--inspector-port', '0']
  const quiet = ['--persist-to', join(folder, 'state'), '--show-interactive-dev-session=false']
  return [...entry, '--config', join(root, config), ...listen, ...quiet, ...envFiles]
}

/** Only what wrangler needs: no account, no telemetry, no look-up of updates, no files in the user's folders. */
function environment(folder: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    // Wrangler keeps notes of its own in the user's folders, whether or not it may send them.
    HOME: folder,
    CI: 'true',
    NO_COLOR: '1',
    WRANGLER_SEND_METRICS: 'false',
    WRANGLER_SEND_ERROR_REPORTS: 'false',
    WRANGLER_HIDE_BANNER: 'true',
    WRANGLER_WRITE_LOGS: 'false',
    WRANGLER_REGISTRY_PATH: join(folder, 'registry'),
    CLOUDFLARE_CF_FETCH_ENABLED: 'false',
  }
}

function ready(
  child: ChildProcess,
  ended: Promise<void>,
  options: LocalWorkerOptions,
  isClosing: () => boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const said: string[] = []
    let url: string | undefined
    const fail = (why: string): void => reject(new Error(`The Worker did not start: ${why}\n${said.join('\n')}`))
    const timer = setTimeout(() => fail(`it was not ready within ${READY_MS} ms`), READY_MS)
    const isOwn = ownLineFilter()

    const hear = (raw: string): void => {
      const line = stripVTControlCharacters(raw)
      const at = /^\[wrangler:info\] Ready on (http:\/\/\S+)/.exec(line)?.[1]
      if (url === undefined) said.push(line)
      if (at !== undefined && url === undefined) {
        clearTimeout(timer)
        url = at
        resolve(at)
      } else if (line.startsWith('⎔ Local server updated')) {
        options.onReload?.()
      } else if (url !== undefined && isOwn(line)) {
        options.onLine(line.replace(/^✘ \[ERROR\] /, ''))
      }
    }
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', hear)
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on('line', (line) => {
        // Wrangler's bundler complains with a stack of its own when it is ended while it looks for changes.
        if (!isClosing()) hear(line)
      })
    }
    void ended.finally(() => {
      clearTimeout(timer)
      fail('its process ended')
    })
  })
}

/** Tells what the functions wrote from what wrangler says of itself. */
function ownLineFilter(): (line: string) => boolean {
  let isInHint = false
  return (line) => {
    // Its hint that cron does not tick by itself here; the caller ticks. It ends with a link.
    if (line.includes('Scheduled Workers are not automatically triggered')) isInHint = true
    if (isInHint) {
      if (line.includes('For more details')) isInHint = false
      return false
    }
    return line.trim() !== '' && !line.startsWith('[wrangler:') && !line.startsWith('⎔')
  }
}

async function tick(url: string, signal?: AbortSignal): Promise<boolean> {
  const address = `${url}/cdn-cgi/handler/scheduled?cron=${encodeURIComponent('* * * * *')}&format=json`
  const response = await fetch(address, signal === undefined ? {} : { signal })
  const { outcome } = (await response.json()) as { outcome?: string }
  return outcome === 'ok'
}

/** Wrangler ends its workerd and waits for it; only what outlives that is ended by force, with all it started. */
async function end(child: ChildProcess, ended: Promise<void>): Promise<void> {
  child.kill('SIGINT')
  const timer = setTimeout(() => killGroup(child), END_MS)
  await ended
  clearTimeout(timer)
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // ESRCH: the whole group has ended already, which is what was wanted.
  }
}

/** Single quotes keep everything but themselves as it is; a value that has one goes into the other kind. */
function dotenv(vars: Readonly<Record<string, string>>): string {
  return Object.entries(vars)
    .map(([name, value]) => {
      const quote = ["'", '"', '`'].find((candidate) => !value.includes(candidate))
      if (quote === undefined)
        throw new Error(`${name} holds all three kinds of quotes, which a variables file cannot.`)
      return `${name}=${quote}${value}${quote}\n`
    })
    .join('')
}
