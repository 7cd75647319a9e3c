/** The exports of source files, read from their formatted text. */

/** One exported declaration of a file. */
export interface ExportedSymbol {
  readonly name: string
  /** Whether a doc comment stands right above it. */
  readonly documented: boolean
}

/** What a file declares and exports, in order. */
export function exportsOf(text: string): ExportedSymbol[] {
  const lines = text.split('\n')
  return lines.flatMap((line, index) => {
    const name = /^export (?:default )?(?:abstract )?(?:async )?(?:class|const|function\*?|interface|type) (\w+)/.exec(
      line,
    )?.[1]
    if (name === undefined) return []
    const above = lines[index - 1] ?? ''
    return [{ name, documented: /^( \*\/|\/\*\* .*\*\/)$/.test(above) }]
  })
}

/** What a barrel passes on: each name with the file it comes from. */
export function passedOn(text: string): { readonly name: string; readonly from: string }[] {
  return [...text.matchAll(/^export (?:type )?\{([^}]*)\} from '([^']+)'/gm)].flatMap(([, names = '', from = '']) =>
    names
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '')
      .map((name) => ({ name, from })),
  )
}
