/** A folder for a proof's log, gone with its scope, and what programs a proof needs beside Node. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** An empty folder, under `root` where that is there. */
export function temporaryFolder(name: string, root: string = tmpdir()): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(existsSync(root) ? root : tmpdir(), `kedge-${name}-`))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** @throws where a program that a proof needs is not there, or may not do what it is for */
export function requireStrace(): void {
  try {
    execFileSync('strace', ['-qq', '-o', '/dev/null', 'true'], { stdio: 'pipe' })
  } catch (cause) {
    throw new Error(
      `This proof needs strace (Debian: apt-get install strace) and the right to trace its own processes: ${String(cause)}`,
      { cause },
    )
  }
}
