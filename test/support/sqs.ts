/** An SQS-compatible server over HTTP on a loopback port, and its queues as their users see them. */
import { CreateQueueCommand, DeleteMessageCommand, ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs'
import { buildApp } from 'fauxqs'

export const testCredentials = { accessKeyId: 'test', secretAccessKey: 'test' } as const

export interface SqsServer extends AsyncDisposable {
  readonly url: string
  readonly client: SQSClient
  /** Creates a queue and gives its URL. */
  createQueue(name: string, attributes?: Readonly<Record<string, string>>): Promise<string>
  /** The bodies of all messages ever received: takes what is in the queue first, as a consumer would. */
  receiveAll(queueUrl: string): Promise<string[]>
  close(): Promise<void>
}

/** Starts an empty server. */
export async function startSqs(port = 0): Promise<SqsServer> {
  const app = buildApp({ logger: false })
  await app.listen({ port, host: '127.0.0.1' })
  const address = app.server.address()
  if (address === null || typeof address === 'string') throw new Error('the SQS server has no port')
  const url = `http://127.0.0.1:${address.port}`
  const client = new SQSClient({ endpoint: url, region: 'us-east-1', credentials: testCredentials, maxAttempts: 1 })
  const received = new Map<string, string[]>()
  const close = async (): Promise<void> => {
    client.destroy()
    await app.close()
  }
  return {
    url,
    client,
    async createQueue(name, attributes) {
      const command = new CreateQueueCommand({ QueueName: name, ...(attributes && { Attributes: { ...attributes } }) })
      const { QueueUrl } = await client.send(command)
      // The server names itself by its own host; the path is what counts.
      return `${url}${new URL(QueueUrl ?? url).pathname}`
    },
    async receiveAll(queueUrl) {
      const bodies = received.get(queueUrl) ?? []
      received.set(queueUrl, bodies)
      for (;;) {
        const { Messages = [] } = await client.send(
          new ReceiveMessageCommand({ QueueUrl: queueUrl, MaxNumberOfMessages: 10 }),
        )
        if (Messages.length === 0) return [...bodies]
        for (const { Body, ReceiptHandle } of Messages) {
          bodies.push(Body ?? '')
          // A FIFO queue hands out a group's next message when this one is gone.
          await client.send(new DeleteMessageCommand({ QueueUrl: queueUrl, ReceiptHandle }))
        }
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
