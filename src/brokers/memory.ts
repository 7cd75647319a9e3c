/**
 * The log in memory: everything the embedded log does, for as long as the process lives. For tests and for trying out.
 * Guarantees: those of the port, except that nothing survives `close()`. Needs no Node: runs on workerd too.
 */
import type { Broker } from '../broker.ts'
import { embeddedBroker } from '../log/engine.ts'
import type { EngineOptions } from '../log/engine.ts'
import { memoryStore } from '../log/memory-store.ts'

/** Options of `memoryBroker`. */
export type MemoryBrokerOptions = EngineOptions

/** A broker that keeps everything in memory. */
export function memoryBroker(options: MemoryBrokerOptions = {}): Broker {
  return embeddedBroker(memoryStore(), options)
}
