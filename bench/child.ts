/**
 * A process of its own for each contender, on a core of its own. It is a file of `workers/` whose functions the bench
 * calls by name; it ends with the bench.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

import { pinnedTo } from './machine.ts'

export interface Child extends AsyncDisposable {
  /** Calls a function of the worker. The caller says what it answers, the worker must keep to it. */
  call<T>(name: string, argument?: unknown): Promise<T>
  /** Processor time used so far, user and system, microseconds. */
  cpuUs(): Promise<number>
  close(): Promise<void>
}

interface Answer {
  readonly id: number
  readonly value?: unknown
  readonly error?: string
}

/** Starts a worker on a core and resolves when it takes calls. */
export async function startChild(worker: string, core: number): Promise<Child> {
  const file = join(import.meta.dirname, 'workers', `${worker}.ts`)
  const [command, ...args] = [...pinnedTo(core), process.execPath, ...process.execArgv, file]
  const child = spawn(command ?? process.execPath, args, {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  })
  const waiting = new Map<number, PromiseWithResolvers<unknown>>()
  let nextId = 0
  child.on('message', (answer: Answer) => {
    const call = waiting.get(answer.id)
    waiting.delete(answer.id)
    if (answer.error === undefined) call?.resolve(answer.value)
    else call?.reject(new Error(`${worker}: ${answer.error}`))
  })
  child.on('exit', (code) => {
    for (const call of waiting.values()) call.reject(new Error(`${worker} ended with status ${code}`))
  })
  const call = <T>(name: string, argument?: unknown): Promise<T> => {
    const pending = Promise.withResolvers<unknown>()
    nextId += 1
    waiting.set(nextId, pending)
    child.send({ id: nextId, name, argument })
    return pending.promise as Promise<T>
  }
  await call('ready')
  const close = (): Promise<void> => end(child)
  return { call, cpuUs: () => call<number>('cpuUs'), close, [Symbol.asyncDispose]: close }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.disconnect()
  await exited
}
