// The application behind the return URL confirms which user sits at this browser. npm bedrock-agentcore has nothing for
// it, so it calls the operation of the AWS SDK.
//
// Environment: AWS's variables as in threelo.mjs, with the key of a consent-app; SESSION_URI (session_id of the return
// URL); USER_TOKEN or USER_ID. Events: completed; error {code, status, message}.

import { BedrockAgentCoreClient, CompleteResourceTokenAuthCommand } from '@aws-sdk/client-bedrock-agentcore'

import { failed, setting, tell } from './tell.mjs'

const userIdentifier = process.env.USER_TOKEN ? { userToken: process.env.USER_TOKEN } : { userId: setting('USER_ID') }
try {
  await new BedrockAgentCoreClient({}).send(
    new CompleteResourceTokenAuthCommand({ sessionUri: setting('SESSION_URI'), userIdentifier }),
  )
  tell('completed')
} catch (e) {
  failed(e)
}
