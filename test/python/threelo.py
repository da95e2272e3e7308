"""An agent's author uses the official clients, and nothing of ours: boto3 gets the workload access token for a user's
JWT, and @requires_access_token of PyPI bedrock-agentcore gets a provider's token for that user.

Only environment variables tell it where the server is. Those of AWS: AWS_ENDPOINT_URL_BEDROCK_AGENTCORE and
AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL (boto3), BEDROCK_AGENTCORE_DP_ENDPOINT and BEDROCK_AGENTCORE_CP_ENDPOINT
(bedrock-agentcore reads them once, at import), AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Those of the
test: WORKLOAD, USER_TOKEN, PROVIDER, RETURN_URL, SCOPES (separated by spaces), FORCE=1, CUSTOM_STATE,
CUSTOM_PARAMETERS (JSON), CALLS (2).

Events: wat {fingerprint}; auth_url {call, url} when the user must consent; token {call, fingerprint, asked}; error
{call, code, status, message}. The calls alternate between a plain and an async function, which the package treats
differently. The package's own poller sleeps 5 seconds before its first poll; a poller of one's own is official too,
but this one is what agents run.
"""

import asyncio
import json
import sys

import boto3
from bedrock_agentcore.identity import requires_access_token
from bedrock_agentcore.runtime import BedrockAgentCoreContext
from botocore.exceptions import ClientError

from tell import fingerprint, setting, tell

call = {"number": 0, "asked": False}


def consent_wanted(url):
    call["asked"] = True
    tell("auth_url", call=call["number"], url=url)


needs_token = requires_access_token(
    provider_name=setting("PROVIDER"),
    scopes=setting("SCOPES", "openid").split(),
    auth_flow="USER_FEDERATION",
    on_auth_url=consent_wanted,
    callback_url=setting("RETURN_URL"),
    force_authentication=setting("FORCE", "") == "1",
    custom_state=setting("CUSTOM_STATE", "") or None,
    custom_parameters=json.loads(setting("CUSTOM_PARAMETERS", "{}")) or None,
)


@needs_token
def book(*, access_token):
    return access_token


@needs_token
async def book_async(*, access_token):
    return access_token


def main():
    data = boto3.client("bedrock-agentcore", region_name=setting("AWS_REGION"))
    wat = data.get_workload_access_token_for_jwt(
        workloadName=setting("WORKLOAD"), userToken=setting("USER_TOKEN")
    )["workloadAccessToken"]
    BedrockAgentCoreContext.set_workload_access_token(wat)
    tell("wat", fingerprint=fingerprint(wat))

    for number in range(1, int(setting("CALLS", "2")) + 1):
        call.update(number=number, asked=False)
        token = book() if number % 2 else asyncio.run(book_async())
        tell("token", call=number, fingerprint=fingerprint(token), asked=call["asked"])


try:
    main()
except ClientError as e:
    tell("error", call=call["number"], code=e.response["Error"]["Code"], message=e.response["Error"]["Message"],
         status=e.response["ResponseMetadata"]["HTTPStatusCode"])
    sys.exit(1)
