/** R0: the least that node:http can do for a produce: read the whole body, answer fixed JSON of the size a gateway answers. */
import { once } from 'node:events'
import { type Server, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { serve } from './serve.ts'

let server: Server | undefined

serve({
  async start(answer: string) {
    const body = Buffer.from(answer)
    const head = { 'content-type': 'application/json', 'content-length': body.length }
    server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        if (Buffer.concat(chunks).length === 0) response.writeHead(400)
        else response.writeHead(200, head)
        response.end(body)
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
})
