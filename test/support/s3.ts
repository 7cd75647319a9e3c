/** An S3-compatible server over HTTP on a loopback port, and a client of it. */
import { CreateBucketCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { buildApp } from 'fauxqs'

import { testCredentials } from './sqs.ts'

/** A running server. */
export interface S3Server extends AsyncDisposable {
  readonly url: string
  readonly client: S3Client
  createBucket(name: string): Promise<void>
  /** Every key of a bucket. */
  keysOf(bucket: string): Promise<string[]>
  close(): Promise<void>
}

/** Starts an empty server. */
export async function startS3(port = 0): Promise<S3Server> {
  const app = buildApp({ logger: false })
  // The server takes no notice of `If-None-Match` with a PUT, which S3 has had since 2024: an object is created or refused.
  app.addHook('preHandler', async (request, reply) => {
    if (request.method !== 'PUT' || request.headers['if-none-match'] !== '*') return
    const head = await app.inject({ method: 'HEAD', url: request.url.split('?')[0] ?? request.url })
    if (head.statusCode === 200) {
      await reply
        .code(412)
        .type('application/xml')
        .send('<Error><Code>PreconditionFailed</Code><Message>It is there already.</Message></Error>')
    }
  })
  await app.listen({ port, host: '127.0.0.1' })
  const address = app.server.address()
  if (address === null || typeof address === 'string') throw new Error('the S3 server has no port')
  const url = `http://127.0.0.1:${address.port}`
  const settings = { endpoint: url, region: 'us-east-1', credentials: testCredentials, forcePathStyle: true }
  const client = new S3Client({ ...settings, maxAttempts: 1 })
  const close = async (): Promise<void> => {
    client.destroy()
    await app.close()
  }
  return {
    url,
    client,
    async createBucket(Bucket) {
      await client.send(new CreateBucketCommand({ Bucket }))
    },
    async keysOf(Bucket) {
      const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }))
      return Contents.map(({ Key = '' }) => Key)
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
