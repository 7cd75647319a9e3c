/** The contract as a document, and a page that shows it with no network beyond the gateway. */
import * as z from 'zod'
import { GatewayError } from '../../errors.ts'
import { openApiDocument } from '../openapi.ts'
import { pathOf } from '../path.ts'
import { defineRoute, type Route } from '../route.ts'
import type { GatewayResponse } from '../request.ts'

/** A file of the page: what `swagger-ui-dist` ships, by name. Undefined where there is no such file. */
export type DocsAssets = (name: string) => Promise<Uint8Array | undefined>

const contentTypes: Readonly<Record<string, string>> = {
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  png: 'image/png',
}

/** No inline script or style, nothing from elsewhere, nobody's frame. */
const securityPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const pageHeaders = {
  'Content-Security-Policy': securityPolicy,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
}

/** The page. `folder` is where its files are, seen from its own address. */
const page = (folder: string): string => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Kedge gateway</title>
<link rel="stylesheet" href="${folder}swagger-ui.css"><link rel="icon" href="${folder}favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="${folder}swagger-ui-bundle.js"></script><script src="${folder}init.js"></script></body>
</html>
`
const initScript = `const url = new URL('../openapi.json', document.currentScript.src).href
window.ui = SwaggerUIBundle({ url, dom_id: '#swagger-ui', validatorUrl: null })
`

const files = ['init.js', 'swagger-ui.css', 'swagger-ui-bundle.js', 'favicon-32x32.png'] as const

/** The routes that need the table they are in, and the files of the page. */
export function documentRoutes(routes: () => readonly Route[], assets: DocsAssets | undefined): readonly Route[] {
  let document: object | undefined
  return [
    defineRoute({
      methods: ['GET'],
      path: '/openapi.json',
      operationId: 'openapi',
      summary: 'This contract as an OpenAPI 3.1 document',
      access: 'public',
      answers: { 200: z.looseObject({ openapi: z.string() }) },
      handle: () => ({ json: (document ??= openApiDocument(routes())) }),
    }),
    defineRoute({
      methods: ['GET'],
      path: '/docs',
      operationId: 'docs',
      summary: 'This contract as a page',
      access: 'public',
      answers: { 200: null },
      handle: (_input, { request }) => {
        if (assets === undefined) throw noPage()
        return file(page(pathOf(request.target).endsWith('/') ? '' : 'docs/'), 'text/html; charset=utf-8')
      },
    }),
    defineRoute({
      methods: ['GET'],
      path: '/docs/{file}',
      operationId: 'docsFile',
      summary: 'A file of the page',
      access: 'public',
      params: z.object({ file: z.string() }),
      answers: { 200: null },
      async handle({ params }) {
        const name = files.find((one) => one === params.file)
        const bytes = name === 'init.js' ? initScript : name && (await assets?.(name))
        if (name === undefined || bytes === undefined || assets === undefined) throw noPage()
        return file(bytes, contentTypes[name.slice(name.lastIndexOf('.') + 1)] ?? 'application/octet-stream')
      },
    }),
  ]
}

function file(body: string | Uint8Array, contentType: string): GatewayResponse {
  return { status: 200, headers: { ...pageHeaders, 'Content-Type': contentType }, body }
}

function noPage(): GatewayError {
  return new GatewayError('UNKNOWN_ROUTE', 'There is no such page here: the contract is at /openapi.json.')
}
