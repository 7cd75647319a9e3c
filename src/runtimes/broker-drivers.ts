/** Brokers of the platforms that have Node's modules and sockets, beside `rest`, which every platform has. */
import type { BrokerDrivers } from './open-broker.ts'

/** None yet. */
export const brokerDrivers: BrokerDrivers = {}
