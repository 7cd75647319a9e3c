/** What a deployment would upload, made without an account: by wrangler and by osls, without a warning of either. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, expect, test } from 'vitest'
import { buildLambda } from '../../scripts/build-lambda.ts'

const folder = mkdtempSync(join(tmpdir(), 'kedge-deploy-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Runs a tool's script and gives its status and everything it said. */
async function run(script: string, ...args: string[]): Promise<{ status: number | null; said: string }> {
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: folder,
      CI: 'true',
      NO_COLOR: '1',
      WRANGLER_SEND_METRICS: 'false',
      WRANGLER_HIDE_BANNER: 'true',
      WRANGLER_WRITE_LOGS: 'false',
    },
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [out, err, status] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { status, said: out + err }
}

test('wrangler bundles the Worker', async () => {
  const outdir = join(folder, 'worker')

  const { status, said } = await run('node_modules/wrangler/bin/wrangler.js', 'deploy', '--dry-run', '--outdir', outdir)

  expect([status, said]).toEqual([0, expect.stringContaining('--dry-run: exiting now.')])
  expect(said).not.toMatch(/warn|deprecat/i)
  expect(readFileSync(join(outdir, 'worker.js'), 'utf8')).not.toContain('@aws-sdk')
}, 60_000)

test('osls packages the Lambda functions, each with nothing but its own bundle', async () => {
  const outdir = join(folder, 'lambda')
  await buildLambda()

  const { status, said } = await run('node_modules/osls/bin/serverless.js', 'package', '--package', outdir)

  expect([status, said]).toEqual([0, expect.stringContaining('Service packaged')])
  expect(said).not.toMatch(/warn|deprecat/i)
  expect(readdirSync(outdir)).toEqual(expect.arrayContaining(['consume.zip', 'produce.zip', 'redrive.zip']))
  const template = JSON.parse(
    readFileSync(join(outdir, 'cloudformation-template-update-stack.json'), 'utf8'),
  ) as CloudFormationTemplate
  const types = Object.values(template.Resources).map(({ Type }) => Type)
  expect(types).toEqual(
    expect.arrayContaining(['AWS::SQS::Queue', 'AWS::ApiGatewayV2::Api', 'AWS::Events::Rule', 'AWS::Lambda::Function']),
  )
  expect(template.Resources['ConsumeLambdaFunction']?.Properties).toMatchObject({
    Runtime: 'nodejs24.x',
    Environment: { Variables: { KEDGE_DEAD_LETTERS: { 'Fn::Join': ['', ['sqs+', { Ref: 'DeadLetterQueue' }]] } } },
  })
  const mappings = Object.values(template.Resources).filter(({ Type }) => Type === 'AWS::Lambda::EventSourceMapping')
  expect(mappings.map(({ Properties }) => Properties)).toEqual([
    expect.objectContaining({ Enabled: false, FunctionResponseTypes: ['ReportBatchItemFailures'] }),
  ])
}, 60_000)

interface CloudFormationTemplate {
  readonly Resources: Readonly<Record<string, { readonly Type: string; readonly Properties?: unknown }>>
}
