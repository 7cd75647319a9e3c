export interface UntilOptions {
  /** Named in the error. @default 'the condition' */
  readonly what?: string
  /** @default 5000 */
  readonly timeoutMs?: number
}

/**
 * Resolves as soon as `condition` answers true, asked every few milliseconds of real time.
 * @throws when it has not after `timeoutMs`.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  { what = 'the condition', timeoutMs = 5_000 }: UntilOptions = {},
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for ${what}, in vain.`)
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
}
