/**
 * Blots out what looks like a secret in the text of an error, before the text is stored, logged or shown. It knows the forms
 * that errors of clients and databases are seen with; a secret in plain words it cannot know.
 */

const SECRET = '[secret]'
/** More of a text than this is never kept, and not looked at. */
const MAX_CHARS = 65_536

/** Names whose value is a secret, whatever stands before them: `db_password`, `X-Amz-Signature`. */
const secretName =
  '(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key|signature|credentials?)'

const patterns: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)/g, SECRET],
  // User names and passwords in URLs, and the values of authorization headers.
  [/\/\/[^/@\s]{1,500}@/g, `//${SECRET}@`],
  [/\b(basic|bearer)\s+[\w+/=.~-]{4,}/gi, `$1 ${SECRET}`],
  // name=value, name: value, "name": "value". A blank before the colon is no assignment but a sentence.
  [
    new RegExp(
      String.raw`(${secretName})(["']\s{0,3}|\s{1,3}(?==))?([=:]\s{0,3})(?:"[^"\n]{1,2000}"?|'[^'\n]{1,2000}'?|[^\s"'&,;)}\]]+)`,
      'gi',
    ),
    `$1$2$3${SECRET}`,
  ],
  // A JSON web token begins with an object in base64url. Its head has a bound: a text may begin one at every dash.
  [/\beyJ[\w-]{5,2000}\.[\w-]{5,}\.[\w-]*/g, SECRET],
  // Keys that say by their first letters whose they are: AWS, GitHub, GitLab, Slack, Stripe, Google.
  [/\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/g, SECRET],
  [/\b(?:gh[opsur]_|github_pat_|glpat-|xox[abeprs]-|[rs]k_(?:live|test)_|AIza)[\w-]{16,}/g, SECRET],
]

/** The text without what looks like a secret, at most 64 KiB of it. */
export function withoutSecrets(text: string): string {
  let kept = text.slice(0, MAX_CHARS)
  for (const [pattern, replacement] of patterns) kept = kept.replaceAll(pattern, replacement)
  return kept
}
