/** The event that an HTTP API of API Gateway makes of a request (payload format 2.0). */
import type { APIGatewayProxyEventV2 } from 'aws-lambda'

/** An event for a request. API Gateway gives header names in lower case and the query apart from the path. */
export function httpApiEvent(
  method: string,
  target: string,
  headers: Readonly<Record<string, string>>,
  body?: string,
): APIGatewayProxyEventV2 {
  const [rawPath = '/', rawQueryString = ''] = target.split('?')
  const lowered = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const domainName = 'kedge.execute-api.eu-central-1.amazonaws.com'
  return {
    version: '2.0',
    routeKey: '$default',
    rawPath,
    rawQueryString,
    headers: { host: domainName, ...lowered },
    queryStringParameters: Object.fromEntries(new URLSearchParams(rawQueryString)),
    requestContext: {
      accountId: '000000000000',
      apiId: 'kedge',
      domainName,
      domainPrefix: 'kedge',
      http: {
        method,
        path: rawPath,
        protocol: 'HTTP/1.1',
        sourceIp: '192.0.2.1',
        userAgent: lowered['user-agent'] ?? '',
      },
      requestId: 'local',
      routeKey: '$default',
      stage: '$default',
      time: new Date().toISOString(),
      timeEpoch: Date.now(),
    },
    ...(body === undefined ? {} : { body }),
    isBase64Encoded: false,
  }
}
