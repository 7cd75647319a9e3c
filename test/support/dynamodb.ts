/** A DynamoDB-compatible server over HTTP on a loopback port, with tables as the store wants them. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import {
  CreateTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
  GetItemCommand,
  type AttributeValue,
} from '@aws-sdk/client-dynamodb'
import dynalite from 'dynalite'

import { until } from './until.ts'

export const testCredentials = { accessKeyId: 'test', secretAccessKey: 'test' } as const

export interface DynamoDbServer extends AsyncDisposable {
  readonly url: string
  readonly client: DynamoDBClient
  createTable(name: string): Promise<void>
  /** The item under a key, as it is stored. */
  item(table: string, key: string): Promise<Record<string, AttributeValue> | undefined>
  close(): Promise<void>
}

/** Starts an empty server. */
export async function startDynamoDb(port = 0): Promise<DynamoDbServer> {
  const server = dynalite({ createTableMs: 0, deleteTableMs: 0 })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = new DynamoDBClient({
    endpoint: url,
    region: 'us-east-1',
    credentials: testCredentials,
    maxAttempts: 1,
  })
  const close = async (): Promise<void> => {
    client.destroy()
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return {
    url,
    client,
    async createTable(name) {
      await client.send(
        new CreateTableCommand({
          TableName: name,
          BillingMode: 'PAY_PER_REQUEST',
          AttributeDefinitions: [{ AttributeName: 'key', AttributeType: 'S' }],
          KeySchema: [{ AttributeName: 'key', KeyType: 'HASH' }],
        }),
      )
      const describe = new DescribeTableCommand({ TableName: name })
      await until(async () => (await client.send(describe)).Table?.TableStatus === 'ACTIVE')
    },
    async item(table, key) {
      return (await client.send(new GetItemCommand({ TableName: table, Key: { key: { S: key } } }))).Item
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
