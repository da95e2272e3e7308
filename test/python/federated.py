"""A workload without an access key: boto3 finds credentials by its default chain and nothing else.

Environment: either AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and AWS_ENDPOINT_URL_STS, or
AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; AWS_REGION;
AWS_ENDPOINT_URL_BEDROCK_AGENTCORE; WORKLOAD, a workload identity of the principal. Events: called {fingerprint}, after
which the script waits until the platform rotates the token file; then called again, by a new session. With REFUSED set, no
credentials are expected: one event refused {message}.
"""

import os
import pathlib
import sys
import time

import boto3
import botocore.exceptions

from tell import fingerprint, setting, tell

file = pathlib.Path(os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))


def call():
    data = boto3.session.Session().client("bedrock-agentcore", region_name=setting("AWS_REGION"))
    token = data.get_workload_access_token(workloadName=setting("WORKLOAD"))["workloadAccessToken"]
    tell("called", fingerprint=fingerprint(token))


if os.environ.get("REFUSED"):
    try:
        call()
    except botocore.exceptions.BotoCoreError as e:
        tell("refused", message=str(e))
    except botocore.exceptions.ClientError as e:
        tell("refused", message=str(e))
    else:
        sys.exit("not refused")
    sys.exit(0)
before = file.read_text()
call()
while file.read_text() == before:
    time.sleep(0.05)
call()
