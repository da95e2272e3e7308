"""An agent as its author writes it for AgentCore's Runtime, with nothing of ours: BedrockAgentCoreApp of PyPI
bedrock-agentcore, @requires_access_token, and a second AWS client that uses the pod's real AWS role.

It books an event in the user's calendar, and says which AWS account it runs in. The environment is AWS's, and of the test
PORT, PROVIDER, SCOPE, CALENDAR (the calendar's API).

Events: auth_url {url} when a user must consent; invoked {headers, wat, callback, session} for each request, with the
fingerprint of the token.
"""

import json
import urllib.request

import boto3
from bedrock_agentcore import BedrockAgentCoreApp
from bedrock_agentcore.identity import requires_access_token
from bedrock_agentcore.runtime import BedrockAgentCoreContext

from tell import fingerprint, setting, tell

app = BedrockAgentCoreApp()


@requires_access_token(
    provider_name=setting("PROVIDER"),
    scopes=[setting("SCOPE")],
    auth_flow="USER_FEDERATION",
    on_auth_url=lambda url: tell("auth_url", url=url),
    custom_parameters={"access_type": "offline"},
)
async def book(summary, *, access_token):
    event = {"summary": summary, "start": {"dateTime": "2026-12-01T10:00:00Z"}, "end": {"dateTime": "2026-12-01T11:00:00Z"}}
    request = urllib.request.Request(
        setting("CALENDAR") + "calendars/primary/events", data=json.dumps(event).encode(),
        headers={"Authorization": "Bearer " + access_token, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["summary"]


@app.entrypoint
async def invoke(payload, context):
    tell("invoked", headers=sorted(n.lower() for n in context.request.headers.keys()),
         wat=fingerprint(BedrockAgentCoreContext.get_workload_access_token()),
         callback=BedrockAgentCoreContext.get_oauth2_callback_url(), session=context.session_id)
    booked = await book(payload["summary"])
    account = boto3.client("sts").get_caller_identity()["Account"]
    return {"booked": booked, "account": account}


app.run(port=int(setting("PORT")))
