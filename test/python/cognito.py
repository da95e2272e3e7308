"""Amazon Cognito as moto has it: a user pool with alice and bob in it, each of whom signs in at one application client.

Nothing leaves this process: moto answers boto3 and the key set's address itself. Events: pool {issuer, client, jwks};
tokens {user, sub, id, access} for each user.
"""

import os

os.environ.update(AWS_ACCESS_KEY_ID="pool", AWS_SECRET_ACCESS_KEY="pool", AWS_DEFAULT_REGION="us-east-1")

import boto3  # noqa: E402 (moto wants the variables first)
import requests  # noqa: E402
from moto import mock_aws  # noqa: E402

from tell import tell  # noqa: E402

PASSWORD = "Correct-horse-7"

with mock_aws():
    cognito = boto3.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="users")["UserPool"]["Id"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool, ClientName="web", ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"],
    )["UserPoolClient"]["ClientId"]
    issuer = f"https://cognito-idp.us-east-1.amazonaws.com/{pool}"
    keys = requests.get(f"{issuer}/.well-known/jwks.json", timeout=5)
    keys.raise_for_status()
    tell("pool", issuer=issuer, client=client, jwks=keys.text)
    for user in ("alice", "bob"):
        cognito.admin_create_user(UserPoolId=pool, Username=user)
        cognito.admin_set_user_password(UserPoolId=pool, Username=user, Password=PASSWORD, Permanent=True)
        got = cognito.admin_initiate_auth(
            UserPoolId=pool, ClientId=client, AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": user, "PASSWORD": PASSWORD},
        )["AuthenticationResult"]
        found = cognito.admin_get_user(UserPoolId=pool, Username=user)
        sub = next(a["Value"] for a in found["UserAttributes"] if a["Name"] == "sub")
        tell("tokens", user=user, sub=sub, id=got["IdToken"], access=got["AccessToken"])
