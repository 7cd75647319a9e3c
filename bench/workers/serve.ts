/** The worker's side of `child.ts`: functions by name, called over the process's channel until it is closed. */

export type WorkerFunctions = Readonly<Record<string, (argument: never) => unknown>>

interface Call {
  readonly id: number
  readonly name: string
  readonly argument: unknown
}

/** Takes calls. `end` runs when the bench has gone. */
export function serve(functions: WorkerFunctions, end: () => unknown = () => {}): void {
  const all: WorkerFunctions = {
    ready: () => true,
    cpuUs() {
      const { user, system } = process.cpuUsage()
      return user + system
    },
    ...functions,
  }
  process.on('message', (call: Call) => {
    void answer(all, call)
  })
  process.on('disconnect', () => {
    void Promise.resolve(end()).finally(() => process.exit(0))
  })
}

async function answer(functions: WorkerFunctions, { id, name, argument }: Call): Promise<void> {
  try {
    const run = functions[name]
    if (run === undefined) throw new TypeError(`there is no function ${name}`)
    process.send?.({ id, value: await run(argument as never) })
  } catch (error) {
    process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  }
}
