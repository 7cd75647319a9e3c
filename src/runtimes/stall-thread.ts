/** The thread of `stall-guard.ts`: ends the process when the event loop has made no turn in ten looks, one after the other. */
import { writeSync } from 'node:fs'
import { workerData } from 'node:worker_threads'
import type { StallWatch } from './stall-guard.ts'

// What guardStalls started it with.
const { turns, stallMs } = workerData as StallWatch

/** Looks are counted, and not time: a process that was frozen, or a machine that slept, has not stood still. */
const LOOKS = 10
/** A thread's own stream goes through the event loop that stands still. */
const STDERR = 2

let seen = -1
let looks = 0
setInterval(() => {
  const turn = Atomics.load(turns, 0)
  looks = turn === seen ? looks + 1 : 0
  seen = turn
  if (looks < LOOKS) return
  const what = `Ended: the event loop stood still for ${stallMs} ms. A handler loops for ever, or computes for longer.`
  writeSync(STDERR, `${what} Its record comes again. Mend it, or raise --stall-ms.\n`)
  // Whatever asks the event loop to end waits for it.
  process.kill(process.pid, 'SIGKILL')
}, stallMs / LOOKS)
