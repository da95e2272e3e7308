// A workload without an access key: the AWS SDK for JavaScript v3 finds credentials by its default chain and nothing else.
//
// Environment: either AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and AWS_ENDPOINT_URL_STS, or
// AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; AWS_REGION;
// AWS_ENDPOINT_URL_BEDROCK_AGENTCORE; WORKLOAD, a workload identity of the principal. Events: called {fingerprint}, after
// which the script waits until the platform rotates the token file; then called again, by a new client. With REFUSED set, no
// credentials are expected: one event refused {message}.

import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'

import { BedrockAgentCore } from '@aws-sdk/client-bedrock-agentcore'

import { failed, fingerprint, setting, tell } from './tell.mjs'

const file = process.env.AWS_WEB_IDENTITY_TOKEN_FILE ?? setting('AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE')

async function call() {
  const data = new BedrockAgentCore({})
  const { workloadAccessToken } = await data.getWorkloadAccessToken({ workloadName: setting('WORKLOAD') })
  tell('called', { fingerprint: fingerprint(workloadAccessToken) })
}

if (process.env.REFUSED) {
  await call().then(
    () => process.exit(1),
    (e) => tell('refused', { message: e.message }),
  )
  process.exit(0)
}
try {
  const before = readFileSync(file, 'utf8')
  await call()
  while (readFileSync(file, 'utf8') === before) await setTimeout(50)
  await call()
} catch (e) {
  failed(e)
}
