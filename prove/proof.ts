/** What a proof is given, and what it says. */

/** How a proof is made. */
export interface ProofOptions {
  /** All chance comes from it. What depends on the machine's time may still differ between two runs. */
  readonly seed: number
  /** For CI: shorter, with the same rules. */
  readonly quick: boolean
  /** Takes a line of progress. */
  readonly say: (line: string) => void
  /** Aborted by Ctrl-C: the proof tidies up and ends. */
  readonly stop: AbortSignal
}

/** What a proof found. It holds where `violations` is 0. */
export interface ProofResult {
  readonly runs: number
  readonly violations: number
  /** More numbers, which become part of the last line. */
  readonly figures: Readonly<Record<string, unknown>>
}

/** A promise of the project, tested by breaking what it depends on. */
export interface Proof {
  /** One line for `--help`. */
  readonly summary: string
  readonly prove: (options: ProofOptions) => Promise<ProofResult>
}
