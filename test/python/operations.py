"""Every operation that boto3 knows, through boto3, with asserts on shapes, times and errors.

Environment: AWS's variables as in threelo.py, with the root key; DISCOVERY_URL, CLIENT_ID and CLIENT_SECRET of a
running OpenID provider where this client may use client_credentials; M2M_SCOPE (may be empty); USER_TOKEN, a JWT of a
trusted issuer; EXCHANGE_DISCOVERY_URL, EXCHANGE_CLIENT_ID and EXCHANGE_CLIENT_SECRET of a provider that exchanges users'
tokens and knows any audience. Events: consent {url, callback} for each browser that is wanted (application.py); at the
end done {checked}, the operations that held. The first assert that fails ends it with exit code 1 and a traceback.
"""

import datetime
import json
import pathlib
import uuid

import boto3
from bedrock_agentcore.identity import requires_api_key
from bedrock_agentcore.runtime import BedrockAgentCoreContext
from botocore import xform_name
from botocore.exceptions import ClientError

from application import Application
from tell import fingerprint, setting, tell

REGION = setting("AWS_REGION")
control = boto3.client("bedrock-agentcore-control", region_name=REGION)
data = boto3.client("bedrock-agentcore", region_name=REGION)
mark = uuid.uuid4().hex[:8]
app = Application()
checked = []
REQUESTS = json.loads((pathlib.Path(__file__).parent.parent / "requests.json").read_text())


def held(operation):
    checked.append(operation)


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
    name, url = f"agent-{mark}", app.url
    made = control.create_workload_identity(name=name, allowedResourceOauth2ReturnUrls=[url], tags={"team": "tests"})
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


def vendors():
    """Makes, reads and updates a provider of each vendor, and with each member of the configurations."""
    for v in REQUESTS["offered"]:
        name, [(member, config)] = f"{v['name']}_{mark}", v["config"].items()
        ask = {"name": name, "credentialProviderVendor": v["vendor"]}
        for answer in (control.create_oauth2_credential_provider(oauth2ProviderConfigInput=v["config"], **ask),
                       control.get_oauth2_credential_provider(name=name),
                       control.update_oauth2_credential_provider(oauth2ProviderConfigInput=v["config"], **ask)):
            [(got, out)] = answer["oauth2ProviderConfigOutput"].items()
            assert got == member and out.get("clientId") == config.get("clientId"), (v, answer)
            for asked in ("clientAuthenticationMethod", "onBehalfOfTokenExchangeConfig"):
                assert out.get(asked) == config.get(asked, out.get(asked)), (v, answer)
            assert "placeholder-secret" not in repr(answer), "the client secret came back"
        external = {k: c for k, c in config.items() if not k.startswith("clientSecret")}
        external |= {"clientSecretSource": "EXTERNAL", "clientSecretConfig": {"secretId": "s", "jsonKey": "k"}}
        refused_config("EXTERNAL", {member: external}, ask)
        for r in REQUESTS["refused"] if v["name"] == "actor" else ():
            config = {"oauthDiscovery": config["oauthDiscovery"], "clientId": "placeholder", **r["with"]}
            refused_config(r["words"], {member: config}, ask)
        control.delete_oauth2_credential_provider(name=name)


def refused_config(words, config, ask):
    """A configuration that is refused of a new provider and of the one that there is."""
    for method, name in ((control.create_oauth2_credential_provider, f"refused_{mark}"),
                         (control.update_oauth2_credential_provider, ask["name"])):
        refused(method, "ValidationException", 400, words, oauth2ProviderConfigInput=config, **(ask | {"name": name}))


def exchanging():
    """A provider that exchanges users' tokens. Only workload access tokens from after it are good for that."""
    name = f"exchange_{mark}"
    control.create_oauth2_credential_provider(
        name=name, credentialProviderVendor="CustomOauth2", oauth2ProviderConfigInput={"customOauth2ProviderConfig": {
            "oauthDiscovery": {"discoveryUrl": setting("EXCHANGE_DISCOVERY_URL")},
            "clientId": setting("EXCHANGE_CLIENT_ID"), "clientSecret": setting("EXCHANGE_CLIENT_SECRET"),
            "onBehalfOfTokenExchangeConfig": {
                "grantType": "TOKEN_EXCHANGE", "tokenExchangeGrantTypeConfig": {"actorTokenContent": "NONE"}}}})
    return name


def exchange(provider, by_jwt, machine):
    ask = {"resourceCredentialProviderName": provider, "oauth2Flow": "ON_BEHALF_OF_TOKEN_EXCHANGE", "scopes": ["read"],
           "resources": ["https://api.example.com"], "audiences": ["api"]}
    got = [data.get_resource_oauth2_token(workloadIdentityToken=by_jwt, **ask)["accessToken"] for _ in range(2)]
    assert fingerprint(got[0]) == fingerprint(got[1]), "the second exchange was no vault hit"
    refused(data.get_resource_oauth2_token, "ValidationException", 400, workloadIdentityToken=machine, **ask)
    ask |= {"oauth2Flow": "M2M", "customParameters": {"tenant": "x"}}
    assert data.get_resource_oauth2_token(workloadIdentityToken=machine, **ask)["accessToken"]


def consents(provider, return_url, by_jwt, by_id, user_id):
    """Users consent in a browser: one known by a token, with all that can be asked for, and one that is asserted."""
    callback = control.get_oauth2_credential_provider(name=provider)["callbackUrl"]
    ask = {"resourceCredentialProviderName": provider, "oauth2Flow": "USER_FEDERATION", "resourceOauth2ReturnUrl": return_url,
           "scopes": ["openid", "calendar.write"]}
    whole = ask | {"workloadIdentityToken": by_jwt, "resources": ["https://calendar.example.com"], "audiences": ["calendar"],
                   "customParameters": {"prompt": "consent"}, "customState": "of the browser's session"}
    got = [app.consent(data, callback, {"userToken": setting("USER_TOKEN")}, **whole),
           data.get_resource_oauth2_token(**whole)["accessToken"],
           app.consent(data, callback, {"userToken": setting("USER_TOKEN")}, forceAuthentication=True, **whole),
           app.consent(data, callback, {"userId": user_id}, workloadIdentityToken=by_id, **ask)]
    assert got[0] == got[1] and len({fingerprint(token) for token in got}) == 3, [fingerprint(token) for token in got]


def tokens(workload, return_url, provider):
    exchanger = exchanging()
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
    consents(provider, return_url, by_jwt, by_id, user_id)
    exchange(exchanger, by_jwt, machine)
    held("GetResourceOauth2Token")

    refused(data.complete_resource_token_auth, "AccessDeniedException", 403, "Invalid or expired session",
            sessionUri=f"urn:ietf:params:oauth:request_uri:{mark}", userIdentifier={"userId": user_id})
    refused(data.complete_resource_token_auth, "AccessDeniedException", 403, "Invalid or expired session",
            sessionUri=first["sessionUri"], userIdentifier={"userId": "somebody else"})
    held("CompleteResourceTokenAuth")


def api_keys(workload):
    name, secret = f"maps_{mark}", f"api-key-{mark}"
    made = control.create_api_key_credential_provider(name=name, apiKey=secret, apiKeySecretSource="MANAGED", tags={"team": "tests"})
    assert status(made) == 201 and made["name"] == name and made["apiKeySecretSource"] == "MANAGED", made
    arn = f":token-vault/default/apikeycredentialprovider/{name}"
    assert made["credentialProviderArn"].endswith(arn), made
    assert f":secret:bedrock-agentcore-identity!default/apikey/{name}-" in made["apiKeySecretArn"]["secretArn"], made
    refused(control.create_api_key_credential_provider, "ConflictException", 409,
            f"Credential provider with name: {name} already exists", name=name, apiKey=secret)
    external = {"apiKeySecretSource": "EXTERNAL", "apiKeySecretConfig": {"secretId": "s", "jsonKey": "k"}}
    for method, of in ((control.create_api_key_credential_provider, "other"), (control.update_api_key_credential_provider, name)):
        refused(method, "ValidationException", 400, "apiKeySecretSource", name=of, **external)
    refused(control.create_api_key_credential_provider, "ValidationException", 400, "apiKey", name="other")
    held("CreateApiKeyCredentialProvider")

    got = control.get_api_key_credential_provider(name=name)
    assert got["apiKeySecretArn"] == made["apiKeySecretArn"] and secret not in repr(got), sorted(got)
    recent(got)
    refused(control.get_api_key_credential_provider, "ResourceNotFoundException", 404,
            f"ApiKeyCredentialProvider not found for none_{mark}", name=f"none_{mark}")
    held("GetApiKeyCredentialProvider")

    secret += "-2"
    recent(control.update_api_key_credential_provider(name=name, apiKey=secret, apiKeySecretSource="MANAGED"))
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
    got = control.get_token_vault(tokenVaultId="default")
    assert got["tokenVaultId"] == "default" and got["kmsConfiguration"] == service, got
    assert abs((datetime.datetime.now(datetime.timezone.utc) - got["lastModifiedDate"]).total_seconds()) < 600, got
    refused(control.get_token_vault, "ResourceNotFoundException", 404, tokenVaultId="other")
    held("GetTokenVault")
    kept = control.set_token_vault_cmk(tokenVaultId="default", kmsConfiguration=service)
    assert kept["kmsConfiguration"] == service and kept["lastModifiedDate"] == got["lastModifiedDate"], kept
    refused(control.set_token_vault_cmk, "ValidationException", 400, "CustomerManagedKey", kmsConfiguration={
        "keyType": "CustomerManagedKey", "kmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/" + str(uuid.uuid4())})
    held("SetTokenVaultCMK")
    refused(control.reset_token_vault_key_material, "ValidationException", 400, tokenVaultId="default")
    held("ResetTokenVaultKeyMaterial")


def not_offered():
    """The lists of what is not offered are empty; the rest is refused, or finds nothing."""
    for r in REQUESTS["not_offered"]:
        method = getattr(data if r.get("plane") == "data" else control, xform_name(r["operation"]))
        if "empty" in r:
            assert method(**r["arguments"])[r["empty"]] == [], r
        else:
            refused(method, r["code"], {"ValidationException": 400}.get(r["code"], 404), r["words"], **r["arguments"])
        if r["operation"] not in checked:
            held(r["operation"])


def caller():
    sts = boto3.client("sts", region_name=REGION, endpoint_url=setting("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"))
    me = sts.get_caller_identity()
    assert me["Arn"] == f"arn:aws:iam::{me['Account']}:user/root" and me["UserId"] and len(me["Account"]) == 12, me
    held("GetCallerIdentity")


workload, return_url = workloads()
vendors()
tokens(workload, return_url, providers())
tags(workload, api_keys(workload))
token_vault()
not_offered()
caller()
tell("done", checked=checked)
