/** What a run may spend: time, calls, records. Tells when to stop taking work so that what was begun can be finished. */

export interface BudgetOptions {
  /** The moment by which the run has returned, milliseconds since the epoch. */
  readonly untilMs?: number
  /** How long the run may take, milliseconds. The nearer of this and `untilMs` counts. @default 50000 without `untilMs` */
  readonly runMs?: number
  /**
   * No record is begun in this last part of the run, milliseconds. Handlers that still run get half of it; the rest is
   * for the last commit. @default 2000, or a fifth of the run where that is less; legal 0 to half of the run
   */
  readonly marginMs?: number
  /** Most records to read. @default unlimited, legal 1 to 2^53 - 1 */
  readonly maxRecords?: number
  /**
   * Most calls to the broker and the dead-letter store together (a platform's sub-requests, less those that handlers
   * make). Two or more are kept for the last commit and the release. @default unlimited, legal 4 to 2^53 - 1
   */
  readonly maxCalls?: number
}
