"""The application behind the return URL confirms which user sits at this browser, with the official IdentityClient.

Environment: AWS's variables as in threelo.py, with the key of a consent-app; SESSION_URI (session_id of the return
URL); USER_TOKEN or USER_ID. Events: completed; error {code, status, message}.
"""

import os
import sys

from bedrock_agentcore.services.identity import IdentityClient, UserIdIdentifier, UserTokenIdentifier
from botocore.exceptions import ClientError

from tell import setting, tell

if "USER_TOKEN" in os.environ:
    user = UserTokenIdentifier(user_token=setting("USER_TOKEN"))
else:
    user = UserIdIdentifier(user_id=setting("USER_ID"))
try:
    IdentityClient(setting("AWS_REGION")).complete_resource_token_auth(setting("SESSION_URI"), user)
    tell("completed")
except ClientError as e:
    tell("error", code=e.response["Error"]["Code"], message=e.response["Error"]["Message"],
         status=e.response["ResponseMetadata"]["HTTPStatusCode"])
    sys.exit(1)
