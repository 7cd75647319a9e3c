/** Writes `docs/configuration.md` from the table of settings in `src/config.ts`. Run by `npm run docs`; a test compares. */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type ConfigPart, settingDescriptions } from '../src/config.ts'

/** Where the document lives. */
export const configurationPath: string = fileURLToPath(new URL('../docs/configuration.md', import.meta.url))

const headings: Record<ConfigPart, string> = {
  gateway: 'The gateway (`npm run gateway`, and the gateway inside `npm start`)',
  functions: 'The functions (`functions/worker.ts`, `functions/produce.ts`, `functions/consume.ts`)',
  start: '`npm start` beside them',
}

/** The whole document as text. */
export function configurationDocument(): string {
  const sections = Object.entries(headings).map(([part, heading]) => {
    const rows = settingDescriptions
      .filter((setting) => setting.part === part)
      .map(
        (setting) =>
          `| \`${setting.name}\`${setting.isSecret ? ' (secret)' : ''} | ${setting.legal} | ${setting.default} | ${setting.description} |`,
      )
    return [
      `## ${heading}`,
      '',
      '| name | legal | default | what it does |',
      '| --- | --- | --- | --- |',
      ...rows,
    ].join('\n')
  })
  return `${introduction}\n${sections.join('\n\n')}\n`
}

const introduction = `# Configuration

<!-- Written by scripts/write-configuration.ts from src/config.ts (npm run docs). Change it there. -->

Settings are environment variables: of the process for the gateway and Lambda, \`[vars]\` and secrets for the Worker. They are
read once, at start. All problems are reported together; a name that begins with \`KEDGE_\` and is not listed here is refused; an
empty value counts as not set; secrets print as \`[secret]\`.
`

if (import.meta.main) writeFileSync(configurationPath, configurationDocument())
