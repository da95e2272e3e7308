"""Creates the credential provider google-calendar: once, as an administrator. It asks Google nothing.

Needs GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET of an OAuth client of type "Web application" at Google.
"""
import os

import boto3

made = boto3.client("bedrock-agentcore-control").create_oauth2_credential_provider(
    name="google-calendar",
    credentialProviderVendor="GoogleOauth2",
    oauth2ProviderConfigInput={"googleOauth2ProviderConfig": {
        "clientId": os.environ["GOOGLE_CLIENT_ID"], "clientSecret": os.environ["GOOGLE_CLIENT_SECRET"]}},
)
print("Register this redirect URI at Google:", made["callbackUrl"])
