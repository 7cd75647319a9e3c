/**
 * Randomness as a value that is handed in, so that jitter and keys can be driven by a test. Beside `systemClock` the one
 * place below the runtimes that touches what the platform has.
 */

/** A number from 0 (inclusive) to 1 (exclusive). */
export type Random = () => number

/** The platform's random numbers. */
export const systemRandom: Random = () => Math.random()

/** A new id that nobody else has: 36 characters, visible ASCII. */
export function randomId(): string {
  return crypto.randomUUID()
}
