"""Every operation that boto3 knows, through boto3, with asserts on shapes, times and errors (contract.md §§2, 5, 10).

Environment: AWS's variables as in threelo.py, with the root key; DISCOVERY_URL, CLIENT_ID and CLIENT_SECRET of a
running OpenID provider where this client may use client_credentials; M2M_SCOPE (may be empty); USER_TOKEN, a JWT of a
trusted issuer. Events: checked {operation}, once for each that held; at the end done {count}. The first assert that
fails ends it with exit code 1 and a traceback.
"""

import datetime
import uuid

import boto3
from bedrock_agentcore.identity import requires_api_key
from bedrock_agentcore.runtime import BedrockAgentCoreContext
from botocore.exceptions import ClientError

from tell import fingerprint, setting, tell

REGION = setting("AWS_REGION")
control = boto3.client("bedrock-agentcore-control", region_name=REGION)
data = boto3.client("bedrock-agentcore", region_name=REGION)
mark = uuid.uuid4().hex[:8]
checked = []


def held(operation):
    checked.append(operation)
    tell("checked", operation=operation)


def refused(method, code, status, words="", **arguments):
    """Calls method and returns the parsed error answer, which has that code and status and those words."""
    try:
        method(**arguments)
    except ClientError as e:
        error, meta = e.response["Error"], e.response["ResponseMetadata"]
        assert error["Code"] == code, (error, meta["HTTPStatusCode"])
        assert meta["HTTPStatusCode"] == status, (error, meta["HTTPStatusCode"])
        assert words.lower() in error["Message"].lower(), (words, error)
        assert meta["RequestId"], "no x-amzn-RequestId"
        if code == "ValidationException":
            assert e.response["reason"], "ValidationException without a reason"
        return e.response
    raise AssertionError(f"{method.__name__} was not refused with {code}")


def recent(answer):
    now = datetime.datetime.now(datetime.timezone.utc)
    for name in ("createdTime", "lastUpdatedTime"):
        assert abs((now - answer[name]).total_seconds()) < 120, (name, answer[name])
    assert answer["createdTime"] <= answer["lastUpdatedTime"], answer


def status(answer):
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def all_pages(method, member, **arguments):
    items, token = [], None
    while True:
        page = method(**arguments, **({"nextToken": token} if token else {}))
        assert len(page[member]) <= arguments.get("maxResults", 20)
        items += page[member]
        token = page.get("nextToken")
        if not token:
            return items


def workloads():
    name, url = f"agent-{mark}", "http://localhost:8081/oauth2/callback"
    made = control.create_workload_identity(name=name, allowedResourceOauth2ReturnUrls=[url])
    assert status(made) == 201 and made["name"] == name, made
    assert made["workloadIdentityArn"].endswith(f":workload-identity-directory/default/workload-identity/{name}"), made
    assert made["workloadIdentityArn"].startswith(f"arn:aws:bedrock-agentcore:{REGION}:"), made
    assert made["allowedResourceOauth2ReturnUrls"] == [url], made
    refused(control.create_workload_identity, "ValidationException", 400, "already exists", name=name)
    bad = refused(control.create_workload_identity, "ValidationException", 400, name="no spaces")
    assert bad["reason"] == "FieldValidationFailed" and bad["fieldList"][0]["name"] == "name", bad
    assert bad["fieldList"][0]["message"], bad
    held("CreateWorkloadIdentity")

    got = control.get_workload_identity(name=name)
    assert got["allowedResourceOauth2ReturnUrls"] == [url], got
    recent(got)
    refused(control.get_workload_identity, "ResourceNotFoundException", 404, name=f"none-{mark}")
    held("GetWorkloadIdentity")

    changed = control.update_workload_identity(name=name, allowedResourceOauth2ReturnUrls=[url, url + "/2"])
    assert changed["allowedResourceOauth2ReturnUrls"] == [url, url + "/2"], changed
    recent(changed)
    assert control.update_workload_identity(name=name)["allowedResourceOauth2ReturnUrls"] == [url, url + "/2"]
    assert control.update_workload_identity(name=name, allowedResourceOauth2ReturnUrls=[])[
        "allowedResourceOauth2ReturnUrls"] == []
    control.update_workload_identity(name=name, allowedResourceOauth2ReturnUrls=[url])
    refused(control.update_workload_identity, "ResourceNotFoundException", 404, name=f"none-{mark}")
    held("UpdateWorkloadIdentity")

    others = [f"page-{mark}-{i}" for i in range(3)]
    for other in others:
        control.create_workload_identity(name=other)
    listed = all_pages(control.list_workload_identities, "workloadIdentities", maxResults=2)
    names = [w["name"] for w in listed]
    assert len(names) == len(set(names)) and {name, *others} <= set(names), names
    assert all(set(w) == {"name", "workloadIdentityArn"} for w in listed), listed
    refused(control.list_workload_identities, "ValidationException", 400, maxResults=21)
    held("ListWorkloadIdentities")

    for other in others:
        assert status(control.delete_workload_identity(name=other)) == 204
    refused(control.delete_workload_identity, "ResourceNotFoundException", 404, name=others[0])
    refused(control.get_workload_identity, "ResourceNotFoundException", 404, name=others[0])
    held("DeleteWorkloadIdentity")
    return name, url


def custom(discovery):
    return {"customOauth2ProviderConfig": {
        "oauthDiscovery": discovery, "clientId": setting("CLIENT_ID"), "clientSecret": setting("CLIENT_SECRET"),
    }}


def provider_shape(answer, name):
    assert answer["name"] == name, answer
    assert answer["credentialProviderArn"].startswith(f"arn:aws:bedrock-agentcore:{REGION}:"), answer
    assert answer["credentialProviderArn"].endswith(f":token-vault/default/oauth2credentialprovider/{name}"), answer
    assert ":secret:bedrock-agentcore-identity!default/oauth2/" in answer["clientSecretArn"]["secretArn"], answer
    assert "/identities/oauth2/callback/" in answer["callbackUrl"], answer
    assert answer.get("status", "READY") == "READY", answer
    assert setting("CLIENT_SECRET") not in repr(answer), "the client secret came back"


def providers():
    url = setting("DISCOVERY_URL")
    issuer = url.removesuffix("/.well-known/openid-configuration")
    name = f"custom_{mark}"
    made = control.create_oauth2_credential_provider(
        name=name, credentialProviderVendor="CustomOauth2",
        oauth2ProviderConfigInput=custom({"discoveryUrl": url}), tags={"team": "tests"})
    assert status(made) == 201 and made["clientSecretSource"] == "MANAGED", made
    provider_shape(made, name)
    refused(control.create_oauth2_credential_provider, "ConflictException", 409,
            f"Credential provider with name: {name} already exists", name=name,
            credentialProviderVendor="CustomOauth2", oauth2ProviderConfigInput=custom({"discoveryUrl": url}))
    bad = refused(control.create_oauth2_credential_provider, "ValidationException", 400, name=f"bad_{mark}",
                  credentialProviderVendor="CustomOauth2",
                  oauth2ProviderConfigInput=custom({"discoveryUrl": issuer + "/elsewhere"}))
    assert bad["reason"] == "FieldValidationFailed" and bad["fieldList"], bad
    refused(control.create_oauth2_credential_provider, "ValidationException", 400, name=f"bad_{mark}",
            credentialProviderVendor="GoogleOauth2", oauth2ProviderConfigInput=custom({"discoveryUrl": url}))
    inline = control.create_oauth2_credential_provider(
        name=f"inline_{mark}", credentialProviderVendor="CustomOauth2",
        oauth2ProviderConfigInput=custom({"authorizationServerMetadata": {
            "issuer": issuer, "authorizationEndpoint": issuer + "/auth", "tokenEndpoint": issuer + "/token",
            "responseTypes": ["code"]}}))
    provider_shape(inline, f"inline_{mark}")
    assert inline["callbackUrl"] != made["callbackUrl"], "two providers share a callback URL"
    google = control.create_oauth2_credential_provider(
        name=f"google_{mark}", credentialProviderVendor="GoogleOauth2",
        oauth2ProviderConfigInput={"googleOauth2ProviderConfig": {"clientId": "c", "clientSecret": "placeholder"}})
    assert google["oauth2ProviderConfigOutput"]["googleOauth2ProviderConfig"]["oauthDiscovery"], google
    okta = {"includedOauth2ProviderConfig": {
        "clientId": "c", "clientSecret": "placeholder", "issuer": "https://tenant.example.com",
        "authorizationEndpoint": "https://tenant.example.com/authorize",
        "tokenEndpoint": "https://tenant.example.com/token"}}
    control.create_oauth2_credential_provider(
        name=f"okta_{mark}", credentialProviderVendor="OktaOauth2", oauth2ProviderConfigInput=okta)
    held("CreateOauth2CredentialProvider")

    got = control.get_oauth2_credential_provider(name=name)
    provider_shape(got, name)
    recent(got)
    assert got["credentialProviderVendor"] == "CustomOauth2", got
    config = got["oauth2ProviderConfigOutput"]["customOauth2ProviderConfig"]
    assert config["oauthDiscovery"] == {"discoveryUrl": url} and config["clientId"] == setting("CLIENT_ID"), config
    metadata = control.get_oauth2_credential_provider(name=f"okta_{mark}")["oauth2ProviderConfigOutput"][
        "includedOauth2ProviderConfig"]["oauthDiscovery"]["authorizationServerMetadata"]
    assert metadata["tokenEndpoint"] == "https://tenant.example.com/token", metadata
    refused(control.get_oauth2_credential_provider, "ResourceNotFoundException", 404, name=f"none_{mark}")
    held("GetOauth2CredentialProvider")

    changed = control.update_oauth2_credential_provider(
        name=name, credentialProviderVendor="CustomOauth2", oauth2ProviderConfigInput=custom({"discoveryUrl": url}))
    provider_shape(changed, name)
    recent(changed)
    assert changed["callbackUrl"] == made["callbackUrl"], "the callback URL did not survive an update"
    refused(control.update_oauth2_credential_provider, "ResourceNotFoundException", 404, name=f"none_{mark}",
            credentialProviderVendor="CustomOauth2", oauth2ProviderConfigInput=custom({"discoveryUrl": url}))
    held("UpdateOauth2CredentialProvider")

    listed = all_pages(control.list_oauth2_credential_providers, "credentialProviders", maxResults=2)
    mine = {p["name"]: p for p in listed if p["name"].endswith(mark)}
    assert set(mine) == {f"{kind}_{mark}" for kind in ("custom", "inline", "google", "okta")}, mine
    for p in mine.values():
        recent(p)
    held("ListOauth2CredentialProviders")

    for kind in ("inline", "google", "okta"):
        assert status(control.delete_oauth2_credential_provider(name=f"{kind}_{mark}")) == 204
    refused(control.delete_oauth2_credential_provider, "ResourceNotFoundException", 404, name=f"okta_{mark}")
    refused(control.get_oauth2_credential_provider, "ResourceNotFoundException", 404, name=f"okta_{mark}")
    held("DeleteOauth2CredentialProvider")
    return name


def tokens(workload, return_url, provider):
    machine = data.get_workload_access_token(workloadName=workload)["workloadAccessToken"]
    refused(data.get_workload_access_token, "ResourceNotFoundException", 404, workloadName=f"none-{mark}")
    held("GetWorkloadAccessToken")
    user_id = f"tests+{mark}"
    by_id = data.get_workload_access_token_for_user_id(workloadName=workload, userId=user_id)["workloadAccessToken"]
    held("GetWorkloadAccessTokenForUserId")
    by_jwt = data.get_workload_access_token_for_jwt(workloadName=workload, userToken=setting("USER_TOKEN"))[
        "workloadAccessToken"]
    refused(data.get_workload_access_token_for_jwt, "UnauthorizedException", 401, workloadName=workload,
            userToken=setting("USER_TOKEN")[:-8] + "AAAAAAAA")
    refused(data.get_workload_access_token_for_jwt, "ValidationException", 400, workloadName=workload,
            userToken="a." + "b" * 17000 + ".c")
    held("GetWorkloadAccessTokenForJWT")
    assert len({machine, by_id, by_jwt}) == 3

    ask = {"resourceCredentialProviderName": provider, "oauth2Flow": "M2M", "scopes": setting("M2M_SCOPE", "").split()}
    m2m = data.get_resource_oauth2_token(workloadIdentityToken=machine, **ask)
    assert m2m["accessToken"] and "authorizationUrl" not in m2m and "sessionUri" not in m2m, sorted(m2m)
    again = data.get_resource_oauth2_token(workloadIdentityToken=machine, **ask)
    assert fingerprint(again["accessToken"]) == fingerprint(m2m["accessToken"]), "the second call was no vault hit"
    refused(data.get_resource_oauth2_token, "UnauthorizedException", 401, workloadIdentityToken="not a token", **ask)
    refused(data.get_resource_oauth2_token, "ResourceNotFoundException", 404, workloadIdentityToken=machine,
            **{**ask, "resourceCredentialProviderName": f"none_{mark}"})

    ask = {"resourceCredentialProviderName": provider, "oauth2Flow": "USER_FEDERATION", "scopes": ["openid"],
           "resourceOauth2ReturnUrl": return_url}
    for wat in (by_jwt, by_id):
        first = data.get_resource_oauth2_token(workloadIdentityToken=wat, **ask)
        assert "accessToken" not in first and first["sessionStatus"] == "IN_PROGRESS", sorted(first)
        assert first["sessionUri"].startswith("urn:ietf:params:oauth:request_uri:"), sorted(first)
        assert "/identities/oauth2/authorize?request_uri=" in first["authorizationUrl"]
        poll = data.get_resource_oauth2_token(workloadIdentityToken=wat, sessionUri=first["sessionUri"], **ask)
        assert poll["sessionUri"] == first["sessionUri"] and "accessToken" not in poll, sorted(poll)
    refused(data.get_resource_oauth2_token, "AccessDeniedException", 403, "Invalid or expired session",
            workloadIdentityToken=by_jwt, sessionUri=first["sessionUri"], **ask)
    refused(data.get_resource_oauth2_token, "ValidationException", 400, workloadIdentityToken=by_id,
            **{**ask, "resourceOauth2ReturnUrl": "https://elsewhere.example.com/"})
    held("GetResourceOauth2Token")

    refused(data.complete_resource_token_auth, "AccessDeniedException", 403, "Invalid or expired session",
            sessionUri=f"urn:ietf:params:oauth:request_uri:{mark}", userIdentifier={"userId": user_id})
    refused(data.complete_resource_token_auth, "AccessDeniedException", 403, "Invalid or expired session",
            sessionUri=first["sessionUri"], userIdentifier={"userId": "somebody else"})
    held("CompleteResourceTokenAuth")


def api_keys(workload):
    name, secret = f"maps_{mark}", f"api-key-{mark}"
    made = control.create_api_key_credential_provider(name=name, apiKey=secret, tags={"team": "tests"})
    assert status(made) == 201 and made["name"] == name and made["apiKeySecretSource"] == "MANAGED", made
    arn = f":token-vault/default/apikeycredentialprovider/{name}"
    assert made["credentialProviderArn"].endswith(arn), made
    assert f":secret:bedrock-agentcore-identity!default/apikey/{name}-" in made["apiKeySecretArn"]["secretArn"], made
    refused(control.create_api_key_credential_provider, "ConflictException", 409,
            f"Credential provider with name: {name} already exists", name=name, apiKey=secret)
    refused(control.create_api_key_credential_provider, "ValidationException", 400, "apiKeySecretSource", name="other",
            apiKeySecretSource="EXTERNAL", apiKeySecretConfig={"secretId": "s", "jsonKey": "k"})
    refused(control.create_api_key_credential_provider, "ValidationException", 400, "apiKey", name="other")
    held("CreateApiKeyCredentialProvider")

    got = control.get_api_key_credential_provider(name=name)
    assert got["apiKeySecretArn"] == made["apiKeySecretArn"] and secret not in repr(got), sorted(got)
    recent(got)
    refused(control.get_api_key_credential_provider, "ResourceNotFoundException", 404,
            f"ApiKeyCredentialProvider not found for none_{mark}", name=f"none_{mark}")
    held("GetApiKeyCredentialProvider")

    secret += "-2"
    recent(control.update_api_key_credential_provider(name=name, apiKey=secret))
    refused(control.update_api_key_credential_provider, "ResourceNotFoundException", 404, name=f"none_{mark}", apiKey="k")
    held("UpdateApiKeyCredentialProvider")

    others = [f"page_{mark}_{i}" for i in range(3)]
    for other in others:
        control.create_api_key_credential_provider(name=other, apiKey="k")
    paginator = control.get_paginator("list_api_key_credential_providers")
    pages = list(paginator.paginate(PaginationConfig={"PageSize": 2}))
    listed = [p["name"] for page in pages for p in page["credentialProviders"]]
    assert len(pages) >= 2 and len(listed) == len(set(listed)) and {name, *others} <= set(listed), listed
    refused(control.list_api_key_credential_providers, "ValidationException", 400, maxResults=101)
    control.list_api_key_credential_providers(maxResults=100)
    held("ListApiKeyCredentialProviders")

    wat = data.get_workload_access_token(workloadName=workload)["workloadAccessToken"]
    released = data.get_resource_api_key(workloadIdentityToken=wat, resourceCredentialProviderName=name)
    assert released["apiKey"] == secret, "another key came out"
    BedrockAgentCoreContext.set_workload_access_token(wat)
    decorated = requires_api_key(provider_name=name)(lambda *, api_key: api_key)
    assert decorated() == secret, "the decorator gave another key"
    refused(data.get_resource_api_key, "UnauthorizedException", 401, workloadIdentityToken="no token",
            resourceCredentialProviderName=name)
    refused(data.get_resource_api_key, "ResourceNotFoundException", 404, "ApiKeyCredentialProvider not found",
            workloadIdentityToken=wat, resourceCredentialProviderName=f"none_{mark}")
    held("GetResourceApiKey")

    for other in others:
        assert status(control.delete_api_key_credential_provider(name=other)) == 204
    refused(control.delete_api_key_credential_provider, "ResourceNotFoundException", 404, name=others[0])
    held("DeleteApiKeyCredentialProvider")
    return made["credentialProviderArn"]


def tags(workload, api_key_arn):
    vault = api_key_arn.split(":token-vault/")[0] + ":token-vault/default"
    for arn in (api_key_arn, vault, control.get_workload_identity(name=workload)["workloadIdentityArn"]):
        added = {f"k-{mark}": "a/b c+1", f"l {mark}": ""}
        assert status(control.tag_resource(resourceArn=arn, tags=added)) == 204
        got = control.list_tags_for_resource(resourceArn=arn)["tags"]
        assert added.items() <= got.items(), got
        assert status(control.untag_resource(resourceArn=arn, tagKeys=[f"l {mark}", "never there"])) == 204
        left = control.list_tags_for_resource(resourceArn=arn)["tags"]
        assert left == {k: v for k, v in got.items() if k != f"l {mark}"}, left
        refused(control.tag_resource, "ServiceQuotaExceededException", 402, "50", resourceArn=arn,
                tags={f"t{i}": "x" for i in range(50)})
        refused(control.tag_resource, "ValidationException", 400, "tabard:vault", resourceArn=arn,
                tags={"tabard:vault": "default"})
    refused(control.untag_resource, "ResourceNotFoundException", 404, resourceArn=api_key_arn + "-none", tagKeys=["k"])
    refused(control.list_tags_for_resource, "ResourceNotFoundException", 404, resourceArn=vault.replace("/default", "/x"))
    held("TagResource")
    held("UntagResource")
    held("ListTagsForResource")


def token_vault():
    service = {"keyType": "ServiceManagedKey"}
    got = control.get_token_vault()
    assert got["tokenVaultId"] == "default" and got["kmsConfiguration"] == service, got
    assert abs((datetime.datetime.now(datetime.timezone.utc) - got["lastModifiedDate"]).total_seconds()) < 600, got
    refused(control.get_token_vault, "ResourceNotFoundException", 404, tokenVaultId="other")
    held("GetTokenVault")
    kept = control.set_token_vault_cmk(kmsConfiguration=service)
    assert kept["kmsConfiguration"] == service and kept["lastModifiedDate"] == got["lastModifiedDate"], kept
    refused(control.set_token_vault_cmk, "ValidationException", 400, "CustomerManagedKey", kmsConfiguration={
        "keyType": "CustomerManagedKey", "kmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/" + str(uuid.uuid4())})
    held("SetTokenVaultCMK")


def not_offered():
    pay = {"name": f"pay_{mark}", "credentialProviderVendor": "StripePrivy", "providerConfigurationInput": {
        "stripePrivyConfiguration": {"appId": "a", "appSecret": "s", "authorizationId": "i", "authorizationPrivateKey": "k"}}}
    refused(control.create_payment_credential_provider, "ValidationException", 400, "not offered", **pay)
    refused(control.update_payment_credential_provider, "ResourceNotFoundException", 404, **pay)
    refused(control.get_payment_credential_provider, "ResourceNotFoundException", 404, name=pay["name"])
    refused(control.delete_payment_credential_provider, "ResourceNotFoundException", 404, name=pay["name"])
    assert control.list_payment_credential_providers()["credentialProviders"] == []
    refused(data.get_resource_payment_token, "ResourceNotFoundException", 404, workloadIdentityToken="w",
            resourceCredentialProviderName=pay["name"], paymentTokenRequest={
                "coinbaseCdpTokenRequest": {"requestMethod": "GET", "requestPath": "/x"}})
    held("CreatePaymentCredentialProvider")
    held("UpdatePaymentCredentialProvider")
    held("GetPaymentCredentialProvider")
    held("DeletePaymentCredentialProvider")
    held("ListPaymentCredentialProviders")
    held("GetResourcePaymentToken")

    arn = control.get_workload_identity(name=workload)["workloadIdentityArn"]
    refused(control.put_resource_policy, "ValidationException", 400, "not offered", resourceArn=arn, policy="{}")
    refused(control.get_resource_policy, "ResourceNotFoundException", 404, resourceArn=arn)
    refused(control.delete_resource_policy, "ResourceNotFoundException", 404, resourceArn=arn)
    held("PutResourcePolicy")
    held("GetResourcePolicy")
    held("DeleteResourcePolicy")


def caller():
    sts = boto3.client("sts", region_name=REGION, endpoint_url=setting("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"))
    me = sts.get_caller_identity()
    assert me["Arn"] == f"arn:aws:iam::{me['Account']}:user/root" and me["UserId"] and len(me["Account"]) == 12, me
    held("GetCallerIdentity")


workload, return_url = workloads()
tokens(workload, return_url, providers())
tags(workload, api_keys(workload))
token_vault()
not_offered()
caller()
tell("done", count=len(checked))
