// An agent's author uses the official clients, and nothing of ours: the AWS SDK for JavaScript v3 gets the workload
// access token for a user's JWT, and withAccessToken of npm bedrock-agentcore gets a provider's token for that user.
//
// Only environment variables tell it where the server is. Those of AWS: AWS_ENDPOINT_URL_BEDROCK_AGENTCORE, which
// the package's own client reads too, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Those of the test:
// WORKLOAD, USER_TOKEN, PROVIDER, RETURN_URL, SCOPES (separated by spaces), CUSTOM_STATE, CUSTOM_PARAMETERS (JSON),
// CALLS (2).
//
// Events, as of test/python/threelo.py: wat {fingerprint}; auth_url {call, url} when the user must consent; token
// {call, fingerprint, asked}; error {call, code, status, message}. The package's poller sleeps 5 seconds before its
// first poll, and it cannot be replaced.

import { BedrockAgentCoreClient, GetWorkloadAccessTokenForJWTCommand } from '@aws-sdk/client-bedrock-agentcore'
import { withAccessToken } from 'bedrock-agentcore/identity'

import { failed, fingerprint, setting, tell } from './tell.mjs'

let call = 0
let asked = false

async function main() {
  const data = new BedrockAgentCoreClient({})
  const { workloadAccessToken } = await data.send(
    new GetWorkloadAccessTokenForJWTCommand({ workloadName: setting('WORKLOAD'), userToken: setting('USER_TOKEN') }),
  )
  tell('wat', { fingerprint: fingerprint(workloadAccessToken) })

  const book = withAccessToken({
    workloadIdentityToken: workloadAccessToken,
    providerName: setting('PROVIDER'),
    scopes: setting('SCOPES', 'openid').split(' '),
    authFlow: 'USER_FEDERATION',
    callbackUrl: setting('RETURN_URL'),
    customState: setting('CUSTOM_STATE', '') || undefined,
    customParameters: JSON.parse(setting('CUSTOM_PARAMETERS', '{}')),
    onAuthUrl: (url) => {
      asked = true
      tell('auth_url', { call, url })
    },
  })(async (day, token) => ({ day, token }))

  for (call = 1; call <= Number(setting('CALLS', '2')); call++) {
    asked = false
    const { day, token } = await book('monday')
    if (day !== 'monday') throw new Error(`the tool's own argument became ${day}`)
    tell('token', { call, fingerprint: fingerprint(token), asked })
  }
}

try {
  await main()
} catch (e) {
  failed(e, { call })
}
