"""Our own operations through boto3.client("tabard"), and by the aws command: neither has anything of ours but the model
under AWS_DATA_PATH.

Environment: AWS's variables as in threelo.py, with the root key; AWS_DATA_PATH, the folder with the model;
AWS_ENDPOINT_URL_TABARD; PUBLIC_URL, what the server calls itself; ISSUER, an OpenID provider that nobody has trusted yet,
where CLIENT_ID with CLIENT_SECRET may use client_credentials for M2M_SCOPE and users may consent, and USER_TOKEN of alice
there, for CLIENT_OF_USERS; CORPORATE_ISSUER and CORPORATE_TOKEN, an access token that its UserInfo endpoint takes, for
CLIENT_OF_USERS too. Events: consent {url, callback} for each browser that is wanted (application.py); at the end done
{checked, operations}, what held and what boto3 offers. The first assert that fails ends it with exit code 1 and a
traceback.

STEPS is the whole of it: one entry for each operation, in order. A new operation is a new entry. steps.py does them, and
rights.py has what some need.
"""

import datetime
import json
import os
import time
import types
import uuid

import boto3
from botocore.exceptions import ClientError, EndpointProviderError

from application import Application
from rights import AGENTS_POLICY, NOBODYS_POLICY, Provider
from steps import aws, not_found, recent, refused, run
from tell import setting, tell

REGION = setting("AWS_REGION")
tabard = boto3.client("tabard", region_name=REGION)
control = boto3.client("bedrock-agentcore-control", region_name=REGION)
data = boto3.client("bedrock-agentcore", region_name=REGION)
mark = uuid.uuid4().hex[:8]
app = Application()
none = f"none-{mark}"
names = [f"tests-{mark}-{i}" for i in range(3)]
workload, heir, provider, machine = (f"{kind}-{mark}" for kind in ("workload", "heir", "provider", "machine"))
made_up = f"https://{mark}.example.com"
cluster, domain = f"https://{mark}.kubernetes.example.com", f"spiffe://{mark}.example.com"
missing = {"connectionId": f"cn_{mark}"}
agent, stuck, refusing, plain, rights = (f"{kind}-{mark}" for kind in ("agent", "stuck", "refusing", "plain", "rights"))
account, other = str(uuid.uuid4().int)[:12], str(uuid.uuid4().int)[:12]
quotas = {"workloadIdentities": 11, "credentialProviders": 12, "principals": 13, "policies": 14, "connections": 15, "requestsPerSecond": 16}
alice, bob = ({"issuer": setting("ISSUER"), "subject": name} for name in ("alice", "bob"))
somebody, nobody = {"userRef": uuid.uuid4().hex * 2}, {"userId": f"nobody-{mark}"}
yesterday, tomorrow = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=n) for n in (-1, 1))
s = types.SimpleNamespace()  # what one step finds and a later one asks with
JWKS = json.dumps({"keys": [{  # RFC 7517 appendix A.1
    "kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]})


def keep(**found):
    """Remembers what a later step asks with."""
    s.__dict__.update(found)
    return True


def client(service, key):
    return boto3.client(service, region_name=REGION, aws_access_key_id=key["accessKeyId"], aws_secret_access_key=key["secretAccessKey"])


def own():
    """A client with the key that CreateAccessKey made."""
    return client("tabard", s.key)


def key_works(answer):
    """An agent's key works, and may do what its role allows."""
    refused(own().list_principals, "AccessDeniedException", 403, {})
    return answer["accessKey"]["status"] == "ACTIVE"


def key_is_dead(answer):
    try:
        own().list_principals()
        raise AssertionError("a disabled key works")
    except ClientError as e:
        assert e.response["Error"]["Code"] == "UnrecognizedClientException", e.response
    return answer["accessKey"]["status"] == "DISABLED"


def prepare():
    """Two workload identities and two providers: connections are made here, as agents make them."""
    s.arn = control.create_workload_identity(name=workload)["workloadIdentityArn"]
    control.create_workload_identity(name=heir, tags={"tabard:assurance": "asserted"})
    config = {"oauthDiscovery": {"discoveryUrl": setting("ISSUER") + "/.well-known/openid-configuration"},
              "clientId": setting("CLIENT_ID"), "clientSecret": setting("CLIENT_SECRET")}
    for name in (provider, machine):
        made = control.create_oauth2_credential_provider(
            name=name, credentialProviderVendor="CustomOauth2",
            oauth2ProviderConfigInput={"customOauth2ProviderConfig": config})
        s.callback = s.__dict__.get("callback", made["callbackUrl"])


def identify():
    """Workload access tokens: of the machine, of alice by her token, of a user with claims, of one who is asserted."""
    def wat(kind, **of):
        return getattr(data, "get_workload_access_token" + kind)(workloadName=workload, **of)["workloadAccessToken"]
    s.wat, s.alice = wat(""), wat("_for_jwt", userToken=setting("USER_TOKEN"))
    s.employee = wat("_for_jwt", userToken=setting("CORPORATE_TOKEN"))
    s.asserted = wat("_for_user_id", userId=f"user-{mark}")


def connect():
    """alice consents, and so does the asserted user; the machine needs nobody."""
    ask = {"resourceCredentialProviderName": provider, "oauth2Flow": "USER_FEDERATION", "resourceOauth2ReturnUrl": app.url,
           "scopes": ["openid", "offline_access", "calendar.write"], "customParameters": {"prompt": "consent"}}
    app.consent(data, s.callback, {"userToken": setting("USER_TOKEN")}, workloadIdentityToken=s.alice, audiences=["calendar"],
                resources=["https://calendar.example.com"], **ask)
    app.consent(data, s.callback, {"userId": f"user-{mark}"}, workloadIdentityToken=s.asserted, **ask)
    data.get_resource_oauth2_token(workloadIdentityToken=s.wat, resourceCredentialProviderName=machine, oauth2Flow="M2M",
                                   scopes=[setting("M2M_SCOPE")])


def remembered(items):
    """Every connection is listed once."""
    by = {(c["providerName"], c.get("asserted", False)): c for c in items}
    assert len(items) == len(by) == 3, items
    s.theirs, s.machines, s.users = by[(provider, False)], by[(machine, False)], by[(provider, True)]
    s.two = {"connectionId": s.users["connectionId"]}
    s.one = {"connectionId": s.theirs["connectionId"]}
    return recent(s.theirs["createdTime"]) and s.theirs["audiences"] == ["calendar"]


def employ():
    """An agent with a key and no rights yet, alice's and the asserted user's consent again, and connections of machines at
    providers where they cannot be revoked: one is out of order, one refuses, and one has no endpoint for it."""
    tabard.create_principal(name=agent, roles=["agent"], workloads=[workload])
    s.agent = client("bedrock-agentcore", tabard.create_access_key(principalName=agent)["accessKey"])
    busy, strict = Provider(503), Provider(400)
    inline = {"authorizationServerMetadata": {"issuer": busy.metadata["issuer"], "authorizationEndpoint": busy.metadata["authorization_endpoint"],
                                              "tokenEndpoint": busy.metadata["token_endpoint"]}}
    for name, discovery in (stuck, {"discoveryUrl": busy.url}), (refusing, {"discoveryUrl": strict.url}), (plain, inline):
        control.create_oauth2_credential_provider(
            name=name, credentialProviderVendor="CustomOauth2", oauth2ProviderConfigInput={"customOauth2ProviderConfig": {
                "oauthDiscovery": discovery, "clientId": setting("CLIENT_ID"), "clientSecret": setting("CLIENT_SECRET")}})
        data.get_resource_oauth2_token(workloadIdentityToken=s.wat, resourceCredentialProviderName=name, oauth2Flow="M2M",
                                       scopes=[setting("M2M_SCOPE")])
    of_heir = data.get_workload_access_token(workloadName=heir)["workloadAccessToken"]
    data.get_resource_oauth2_token(workloadIdentityToken=of_heir, resourceCredentialProviderName=machine, oauth2Flow="M2M",
                                   scopes=[setting("M2M_SCOPE")])
    connect()


def release(client):
    return client.get_resource_oauth2_token(workloadIdentityToken=s.alice, resourceCredentialProviderName=provider,
                                            oauth2Flow="USER_FEDERATION", scopes=["openid"], resourceOauth2ReturnUrl=app.url,
                                            audiences=["calendar"], resources=["https://calendar.example.com"])


def overreach():
    """The agent asks for alice's token, which has more than its policy permits: s.records are what the trail then has, one
    with each member that decisions have, and the refusal first."""
    try:
        release(s.agent)
        raise AssertionError("the agent got what no policy permits")
    except ClientError as e:
        assert e.response["Error"]["Code"] == "AccessDeniedException", e.response
    trail = [r for r in tabard.list_audit_records(newest=True, maxResults=1000)["records"] if r["rule"] != "event" and r.get("principal")]
    s.records = [next(r["recordId"] for r in trail if r["principal"] == agent and r["decision"] == "deny")]
    s.records += {next(r["recordId"] for r in trail if member in r) for member in {m for r in trail for m in r}}


def explained(a):
    for record in s.records:
        assert tabard.explain_decision(recordId=record)["record"]["recordId"] == record
    assert all(not d["allowed"] and "calendar.write" in d["scopesBeyond"] and d["missing"] for d in (a["then"], a["now"])), a
    return a["record"]["principal"] == agent and a["remarks"]


def stands(kind, status):
    """A check that a standing has changed just now."""
    return lambda a: (a["standing"]["kind"], a["standing"]["status"]) == (kind, status) and recent(a["standing"]["changedTime"])


def question(**of):
    return {"operation": "GetResourceOauth2Token", "workloadName": workload, "providerName": provider, "flow": "USER_FEDERATION", **of}


def handed_on(**of):
    """A token of the agent nobody, handed on."""
    arn = f"arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/{workload}"
    return {"operation": "ExchangeToken", "workloadName": workload, "audience": arn, "from": "nobody", **of}


def holders(answer):
    """Who can, by name: root always can."""
    by = {p["principalName"]: p for p in answer["principals"]}
    assert by["root"]["rule"] and by["root"]["principalId"], by
    return by


def begun(name):
    """A check of a revocation that was begun, which it waits for: found by its name from then on."""
    return lambda a: keep(**{name: a["revocation"]["revocationId"]}) and recent(a["revocation"]["requestedTime"]) and finished(name)


def until(done, name):
    """Asks for a revocation until done is true of the answer."""
    arguments, end = {"revocationId": getattr(s, name)}, time.monotonic() + 30
    while not done(tabard.get_revocation(**arguments)):
        assert time.monotonic() < end, name
        time.sleep(0.05)
    return arguments


def finished(name):
    return until(lambda a: a["revocation"]["state"] == "DONE", name)


def erased(a):
    return len(a["userRef"]) == 64 and a["receipt"]


def audited(page):
    for r in page["records"]:
        recent(r["time"])
    assert "DeleteTrustedIssuer" in {r["action"] for r in page["records"]}, sorted({r["action"] for r in page["records"]})
    # The trail has no end: reading it is recorded too, so it has no paginator.
    assert not tabard.can_paginate("list_audit_records")
    return keep(next=page["nextToken"])


def only(*expected):
    """A check that the connections listed are these, by the attributes of s."""
    return lambda items: [c["connectionId"] for c in items] == [getattr(s, e)["connectionId"] for e in expected]


STEPS = [
    ("CreatePrincipal", *(({"name": n, "roles": ["agent"], "workloads": ["calendar-agent"]},
                           lambda a, n=n: a["principal"]["name"] == n and recent(a["principal"]["createdTime"])) for n in names),
     {"refusals": [("ConflictException", 409, {"name": names[0], "roles": ["auditor"]}),
                   ("ValidationException", 400, {"name": "no spaces", "roles": ["auditor"]})]}),
    ("ListPrincipals", ({}, lambda items: set(names) <= {p["name"] for p in items}), {"pages": ("principals", 2)}),
    ("DisablePrincipal", ({"name": names[0]}, lambda a: a["principal"]["status"] == "DISABLED"),
     {"refusals": [not_found({"name": none})]}),
    ("EnablePrincipal", ({"name": names[0]}, lambda a: a["principal"]["status"] == "ACTIVE"),
     {"refusals": [not_found({"name": none})]}),

    ("CreateAccessKey", ({"principalName": names[0]}, lambda a: keep(second=a["accessKey"]["accessKeyId"])),
     ({"principalName": names[0]}, lambda a: keep(key=a["accessKey"]) and key_works(a)),
     {"refusals": [not_found({"principalName": none})]}),
    ("ListAccessKeys", ({"principalName": names[0]}, lambda items: all("secretAccessKey" not in k for k in items) and
                        {k["accessKeyId"] for k in items} == {s.key["accessKeyId"], s.second}), {"pages": ("accessKeys", 1)}),
    ("DisableAccessKey", (lambda: {"accessKeyId": s.key["accessKeyId"]}, key_is_dead)),
    ("EnableAccessKey", (lambda: {"accessKeyId": s.key["accessKeyId"]}, key_works)),

    ("CreateTrustedIssuer",
     ({"issuer": setting("ISSUER"), "audiences": [setting("CLIENT_OF_USERS")]},
      lambda a: a["trustedIssuer"]["audiences"] == [setting("CLIENT_OF_USERS")] and recent(a["trustedIssuer"]["createdTime"])),
     ({"issuer": setting("CORPORATE_ISSUER"), "clientIds": [setting("CLIENT_OF_USERS")], "userinfo": True},
      lambda a: a["trustedIssuer"]["userinfo"]),
     ({"issuer": made_up, "audiences": ["a"], "tokenUse": "access", "workloads": [workload], "claims": {"hd": "example.com"},
       "subjectClaim": "oid", "jwks": JWKS, "policyClaims": ["groups", "hd"]},
      lambda a: a["trustedIssuer"]["claims"] and a["trustedIssuer"]["policyClaims"] == ["groups", "hd"] and a["trustedIssuer"]["jwksSource"]),
     ({"issuer": made_up + "/2", "audiences": ["a"], "jwksUri": made_up + "/keys"},
      lambda a: a["trustedIssuer"]["jwksUri"] == made_up + "/keys"),
     {"refusals": [("ConflictException", 409, {"issuer": setting("ISSUER"), "audiences": ["b"]})]}),
    ("ListTrustedIssuers", ({}, lambda items: {setting("ISSUER"), made_up} <= {i["issuer"] for i in items}),
     {"pages": ("trustedIssuers", 1)}),
    ("SetIssuerLogin", ({"issuer": setting("ISSUER"), "clientId": "a-client", "clientSecret": "not-checked-yet",
                         "scopes": ["openid"]}, lambda a: a["redirectUri"].startswith(setting("PUBLIC_URL"))),
     {"refusals": [not_found({"clientId": "a", "issuer": made_up + "/3"})]}),

    (prepare,),
    ("AddReturnUrl", ({"workloadName": workload, "url": app.url}, lambda a: a["allowedResourceOauth2ReturnUrls"] == [app.url]),
     ({"workloadName": workload, "url": app.url + "/2"}, lambda a: len(a["allowedResourceOauth2ReturnUrls"]) == 2),
     {"refusals": [not_found({"workloadName": none, "url": app.url})]}),
    ("RemoveReturnUrl", ({"workloadName": workload, "url": app.url + "/2"},
                         lambda a: a["allowedResourceOauth2ReturnUrls"] == [app.url]),
     {"refusals": [not_found({"workloadName": none, "url": app.url})]}),
    (lambda: control.delete_workload_identity(name=workload),),
    ("RestoreWorkloadIdentity", ({"workloadName": workload}, lambda a: a["workloadIdentityArn"] == s.arn and
                                 control.get_workload_identity(name=workload)["name"] == a["workloadName"]),
     {"refusals": [not_found({"workloadName": none})]}),

    (identify,),
    ("DescribeUser", *((lambda w=w: {"workloadIdentityToken": getattr(s, w)}, lambda a, kind=kind: a["kind"] == kind)
                       for w, kind in (("wat", "none"), ("alice", "jwt"), ("asserted", "uid"))),
     (lambda: {"workloadIdentityToken": s.employee}, lambda a: a["authenticatedAt"]),
     {"refusals": [("UnauthorizedException", 401, {"workloadIdentityToken": "no token"})]}),
    ("GetUserInfo", (lambda: {"workloadIdentityToken": s.employee}, lambda a: a["email"] == "alice@corp.example"),
     {"refusals": lambda: [("UnauthorizedException", 401, {"workloadIdentityToken": "no token"}),
                           ("ValidationException", 400, {"workloadIdentityToken": s.wat})]}),
    ("TestProvider", ({"providerName": provider, "userToken": setting("USER_TOKEN")},
                      lambda a: {c["name"]: c["status"] for c in a["checks"]}["metadata"] == "pass"),
     {"refusals": [not_found({"providerName": none})]}),

    ("ListVendors", ({}, lambda items: {"GoogleOauth2", "CustomOauth2"} <= {v["name"] for v in items}), {"pages": ("vendors", 10)}),

    (connect,),
    ("ListConnections", ({}, remembered), ({"workloadName": workload, "providerName": machine}, only("machines")),
     ({"userIssuer": setting("ISSUER"), "userSubject": "alice"}, only("theirs")),
     (lambda: {"userRef": s.theirs["userRef"], "state": "active"}, only("theirs")),
     ({"userId": f"user-{mark}"}, only("users")),
     {"pages": ("connections", 1)}),
    ("GetConnection", (lambda: s.one, lambda a: a["connection"] == s.theirs),
     (lambda: s.two, lambda a: a["connection"] == s.users), {"refusals": [not_found(missing)]}),
    ("ReportTokenInvalid", (lambda: {"workloadIdentityToken": s.alice, **s.one}, lambda a: a["connectionState"] == "active"),
     {"refusals": lambda: [not_found({"workloadIdentityToken": s.alice, **missing})]}),
    # A machine's connection is nobody's consent, and stays where it is.
    ("TransferConnection", (lambda: {"workloadName": heir, **s.one}, lambda a: a["connection"]["workloadName"] == heir),
     (lambda: {"workloadName": heir, **s.two}, lambda a: a["connection"]["asserted"]),
     {"refusals": lambda: [("ConflictException", 409, {"workloadName": heir, "connectionId": s.machines["connectionId"]}),
                           not_found({"workloadName": heir, **missing})]}),
    ("RevokeConnection", (lambda: s.one, lambda a: a["upstream"] == "revoked" and a["connection"]["state"] == "revoked"),
     (lambda: {"skipUpstream": True, **s.two}, lambda a: a["upstream"] == "skipped" and a["connection"]["asserted"]),
     {"refusals": [not_found(missing)]}),
    ("ListConnections", ({"state": "revoked"}, lambda items: len(items) == 2), {"pages": ("connections", 1)}),
    ("GetConnection", (lambda: s.one, lambda a: a["connection"]["state"] == "revoked")),
    ("DeleteConnection", (lambda: s.one, lambda a: True),
     {"refusals": lambda: [not_found(s.one)]}),

    ("CreateWorkloadIssuer",
     ({"issuer": cluster, "kind": "OIDC", "audiences": ["tabard"], "jwksUri": "https://keys.example.com", "allowOtherAudiences": True},
      lambda a: a["workloadIssuer"]["status"] == "ACTIVE" and a["workloadIssuer"]["allowOtherAudiences"] and recent(a["workloadIssuer"]["createdTime"])),
     ({"issuer": domain, "audiences": ["tabard"], "jwks": JWKS.replace('"sig"', '"jwt-svid"')},
      lambda a: a["workloadIssuer"]["kind"] == "SPIFFE" and a["workloadIssuer"]["jwksSource"] == "document"),
     {"refusals": [("ConflictException", 409, {"issuer": cluster, "audiences": ["tabard"]}),
                   ("ValidationException", 400, {"issuer": "kubernetes/serviceaccount", "audiences": ["tabard"]})]}),
    ("ListWorkloadIssuers", ({}, lambda items: {cluster, domain} <= {i["issuer"] for i in items}), {"pages": ("workloadIssuers", 1)}),
    ("CreateFederationRule",
     ({"issuer": cluster, "subject": "system:serviceaccount:prod:*", "claims": {"kubernetes.io/serviceaccount/uid": "1"}, "principalName": names[0]},
      lambda a: a["rule"]["claims"] and a["rule"]["principalName"] == names[0] and recent(a["rule"]["createdTime"]) and keep(rule=a["rule"]["ruleId"])),
     ({"issuer": domain, "subject": f"{domain}/agent", "principalName": names[0]}, lambda a: a["rule"]["ruleId"] != s.rule),
     {"refusals": [("ValidationException", 400, {"issuer": cluster, "subject": "a", "principalName": "root"}),
                   not_found({"issuer": made_up + "/none", "subject": "a", "principalName": names[0]})]}),
    ("ListFederationRules", ({"principalName": names[0]}, lambda items: len(items) == 2),
     ({"issuer": cluster}, lambda items: [r["ruleId"] for r in items] == [s.rule]), {"pages": ("rules", 1)}),
    ("DeleteFederationRule", (lambda: {"ruleId": s.rule}, lambda a: True), {"refusals": lambda: [not_found({"ruleId": s.rule})]}),
    ("DeleteWorkloadIssuer", ({"issuer": cluster}, lambda a: True), ({"issuer": domain}, lambda a: True),
     {"refusals": [not_found({"issuer": cluster})]}),

    (employ,),
    ("ValidatePolicy", ({"text": "permit (principal, action, nothing);"},
                        lambda a: [(p["severity"], p["line"]) for p in a["problems"]] == [("ERROR", 1)] and a["problems"][0]["column"]),
     ({"text": AGENTS_POLICY % agent}, lambda a: a["problems"] == [])),
    ("PutPolicy", ({"name": rights, "text": AGENTS_POLICY % agent, "description": "no more than openid"},
                   lambda a: keep(policy=a["policy"]) and a["policy"]["source"] == "CREATED" and recent(a["policy"]["createdTime"])),
     (lambda: {"name": rights, "text": AGENTS_POLICY % agent, "description": "as before", "expectedVersion": s.policy["version"]},
      lambda a: a["policy"]["version"] > s.policy["version"] and recent(a["policy"]["lastUpdatedTime"])),
     ({"name": rights + "-2", "text": NOBODYS_POLICY}, lambda a: "nobody" in a["problems"][0]["message"]),
     {"refusals": lambda: [("ConflictException", 409, {"name": rights, "text": NOBODYS_POLICY, "expectedVersion": s.policy["version"]}),
                           ("ValidationException", 400, {"name": rights, "text": "permit"})]}),
    ("GetPolicy", ({"name": rights}, lambda a: a["policy"]["text"] == AGENTS_POLICY % agent and a["policy"]["description"] == "as before" and
                   a["policy"]["createdBy"] == "root"), {"refusals": [not_found({"name": none})]}),
    ("ListPolicies", ({}, lambda items: {rights, rights + "-2"} <= {p["name"] for p in items} and "BUILT_IN" in {p["source"] for p in items}),
     ({"principalName": agent}, lambda items: rights in {p["name"] for p in items} and rights + "-2" not in {p["name"] for p in items}),
     ({"workloadName": workload}, lambda items: rights in {p["name"] for p in items}), {"pages": ("policies", 2)}),
    ("SimulateDecision",
     ({"question": question(principalName=agent, scopes=["openid"], audience="none", time=datetime.datetime.now(datetime.timezone.utc),
                            user={"issuer": setting("ISSUER"), "subject": "alice", "claims": "{}"})},
      lambda a: a["decision"]["allowed"] and a["decision"]["policies"] == [rights] and a["decision"]["rule"] == f"policy:{rights}"),
     ({"question": question(principalName=agent, scopes=["openid", "mail"])},
      lambda a: not a["decision"]["allowed"] and a["decision"]["scopesBeyond"] == ["mail"] and a["decision"]["missing"]),
     ({"question": question(principalName=agent, user={"userId": "u"}), "policies": [NOBODYS_POLICY]}, lambda a: not a["decision"]["allowed"]),
     ({"question": handed_on(principalName=agent)}, lambda a: not a["decision"]["allowed"] and "--from" in a["decision"]["missing"]),
     {"refusals": [not_found({"question": question(principalName=none)}),
                   ("ValidationException", 400, {"question": {"principalName": agent, "operation": "Fly"}})]}),
    ("FindWhoCan", (question(scopes=["openid"], audience="none", user={"issuer": setting("ISSUER"), "subject": "alice", "claims": "{}"}),
                    lambda a: holders(a)[agent]["policies"] == [rights]),
     (question(scopes=["openid", "mail"], user={"userId": "u"}), lambda a: holders(a)[agent]["scopesBeyond"] == ["mail"]),
     (handed_on(), lambda a: agent not in holders(a)),
     {"refusals": [("ValidationException", 400, {"operation": "Fly"})]}),
    (overreach,),
    ("ExplainDecision", (lambda: {"recordId": s.records[0]}, explained), {"refusals": [not_found({"recordId": "no-such-record-1"})]}),
    ("DeletePolicy", ({"name": rights + "-2"}, lambda a: True),
     {"refusals": [not_found({"name": rights + "-2"}), ("ValidationException", 400, {"name": "builtin:admin"})]}),

    ("SetCeilings", ({"workloadName": workload, "ceilings": {"releasesPerMinute": 100, "usersPerHour": 50, "freeze": True}},
                     lambda a: a["ceilings"] == {"releasesPerMinute": 100, "usersPerHour": 50, "freeze": True}),
     {"refusals": [not_found({"workloadName": none, "ceilings": {}})]}),
    (lambda: release(data),),
    ("GetCeilings", ({"workloadName": workload}, lambda a: a["ceilings"]["freeze"] and a["usersThisHour"] == 2 and a["status"] == "ACTIVE" and
                     a["releasesThisMinute"] >= 1), {"refusals": [not_found({"workloadName": none})]}),

    ("CreateDelegation", *(({"workloadName": workload, "userToken": setting("USER_TOKEN"), "note": note,
                             "grants": [{"providerName": provider, "scopes": ["openid", "calendar.write"]}], "until": tomorrow},
                            lambda a, note=note: keep(**{note: a["delegation"]}) and a["delegation"]["grants"][0]["providerName"] == provider and
                            a["delegation"]["note"] == note and recent(a["delegation"]["createdTime"])) for note in ("books", "bills", "mails")),
     {"refusals": [not_found({"workloadName": workload, "userToken": setting("USER_TOKEN"), "grants": [{"providerName": none}], "until": tomorrow}),
                   ("ValidationException", 400, {"workloadName": workload, "userToken": setting("USER_TOKEN"),
                                                 "grants": [{"providerName": provider}], "until": 0})]}),
    ("GetWorkloadAccessTokenForDelegation",
     (lambda: {"workloadName": workload, "delegationId": s.books["delegationId"]},
      lambda a: a["workloadAccessToken"] and a["expiresAt"] <= tomorrow),
     {"refusals": [not_found({"workloadName": workload, "delegationId": "dlg-none"})]}),
    ("EndDelegation", (lambda: {"delegationId": s.books["delegationId"], "userToken": setting("USER_TOKEN")},
                       lambda a: a["delegation"]["state"] == "ENDED" and recent(a["delegation"]["endedTime"]) and recent(a["delegation"]["lastUsedTime"])),
     (lambda: {"delegationId": s.bills["delegationId"]}, lambda a: a["delegation"]["state"] == "ENDED"),
     {"refusals": [not_found({"delegationId": "dlg-none"})]}),
    ("ListDelegations", ({"workloadName": workload, "userToken": setting("USER_TOKEN")},
                         lambda items: {d["note"]: d["state"] for d in items} == {"books": "ENDED", "bills": "ENDED", "mails": "ACTIVE"}),
     ({"user": alice}, lambda items: len(items) == 3), ({"user": nobody}, lambda items: items == []),
     (lambda: {"user": {"userRef": s.mails["userRef"]}}, lambda items: len(items) == 3), {"pages": ("delegations", 1)}),

    ("DisableWorkloadIdentity", ({"name": heir, "reason": "why"}, stands("WORKLOAD_IDENTITY", "DISABLED")), {"refusals": [not_found({"name": none})]}),
    ("DisableUser", *(({"user": user, "reason": "why"}, stands("USER", "DISABLED")) for user in (bob, somebody, nobody)),
     {"refusals": [("ValidationException", 400, {"user": {}})]}),
    ("DisableTrustedIssuer", ({"issuer": made_up, "reason": "why"}, stands("ISSUER", "DISABLED")), {"refusals": [not_found({"issuer": made_up + "/3"})]}),
    ("DisableCredentialProvider", ({"name": plain, "reason": "why"}, stands("PROVIDER", "DISABLED")), {"refusals": [not_found({"name": none})]}),
    ("ListStandings", *(({"kind": kind}, lambda items, n=n: len(items) >= n and {i["reason"] for i in items if i["status"] == "DISABLED"} == {"why"})
                        for kind, n in (("WORKLOAD_IDENTITY", 1), ("USER", 3), ("ISSUER", 1), ("PROVIDER", 1))), {"pages": ("standings", 1)}),
    ("EnableWorkloadIdentity", ({"name": heir}, stands("WORKLOAD_IDENTITY", "ACTIVE")), {"refusals": [not_found({"name": none})]}),
    ("EnableUser", *(({"user": user}, stands("USER", "ACTIVE")) for user in (bob, somebody, nobody)),
     {"refusals": [("ValidationException", 400, {"user": {}})]}),
    ("EnableTrustedIssuer", ({"issuer": made_up, "acceptEndpoints": False}, stands("ISSUER", "ACTIVE")), {"refusals": [not_found({"issuer": made_up + "/3"})]}),
    ("EnableCredentialProvider", ({"name": plain}, stands("PROVIDER", "ACTIVE")), {"refusals": [not_found({"name": none})]}),

    ("RevokeAccess", ({"user": alice, "upstream": True, "reason": "lost laptop"},
                      lambda a: begun("laptop")(a) and a["revocation"]["delegationsEnded"] == 1 and a["revocation"]["workloadAccessTokensEnded"] and
                      a["revocation"]["requestedBy"] == "root" and a["revocation"]["reason"] == "lost laptop"),
     *(({"user": user}, lambda a: begun("none")(a) and a["revocation"]["connections"] == 0) for user in (somebody, nobody)),
     ({"providerName": plain, "upstream": True}, begun("plain")), ({"providerName": refusing, "upstream": True}, begun("refusing")),
     ({"workloadName": workload, "providerName": stuck, "upstream": True}, 
      lambda a: keep(stuck=a["revocation"]["revocationId"]) and a["revocation"]["pendingUpstream"] == 1 and
      until(lambda a: "reason" in a["items"][0], "stuck")),
     {"refusals": [("ValidationException", 400, {}), not_found({"providerName": none})]}),
    ("GetRevocation", (lambda: {"revocationId": s.laptop}, lambda a: recent(a["revocation"]["finishedTime"]) and a["receipt"].count(".") == 2 and
                       a["revocation"]["revokedUpstream"] == 1 and a["items"][0]["userRef"] == s.mails["userRef"]),
     (lambda: {"revocationId": s.plain}, lambda a: a["revocation"]["unsupportedUpstream"] == 1 and a["items"][0]["upstream"] == "unsupported"),
     (lambda: {"revocationId": s.refusing}, lambda a: a["revocation"]["failedUpstream"] == 1 and "unsupported_token_type" in a["items"][0]["reason"]),
     (lambda: {"revocationId": s.stuck}, lambda a: a["revocation"]["state"] == "RUNNING" and a["revocation"]["pendingUpstream"] == 1),
     {"refusals": [not_found({"revocationId": "rvk-none"})]}),
    ("EraseUser", ({"user": {"userId": f"user-{mark}"}, "reason": "asked for it"}, lambda a: a["connectionsRevoked"] == 1 and erased(a)),
     *(({"user": user}, erased) for user in (alice, somebody)),
     {"refusals": [("ValidationException", 400, {"user": {}})]}),
    ("RevokeAccess", ({"wholeAccount": True, "reason": "all of it"}, begun("whole"))),
    ("GetRevocation", (lambda: {"revocationId": s.whole}, lambda items: [i["providerName"] for i in items] == [machine] * 2), {"pages": ("items", 1)}),

    ("CreateAccount", ({"name": "acme"}, lambda a: len(a["account"]["accountId"]) == 12 and a["account"]["status"] == "ACTIVE"),
     ({"accountId": account, "name": "globex", "quotas": quotas}, lambda a: a["account"]["quotas"] == quotas and recent(a["account"]["createdTime"])),
     ({"accountId": other, "name": "initech"}, lambda a: keep(boss=a["rootAccessKey"]) and
      [p["name"] for p in client("tabard", s.boss).list_principals()["principals"]] == ["root"]),
     {"refusals": [("ConflictException", 409, {"accountId": account, "name": "globex"}),
                   ("ValidationException", 400, {"accountId": "twelve chars", "name": "globex"})]}),
    ("DisableAccount", ({"accountId": account, "reason": "unpaid"}, lambda a: a["account"]["status"] == "DISABLED" and a["account"]["reason"] == "unpaid"),
     {"refusals": [not_found({"accountId": "999999999999"})]}),
    ("UpdateAccount", ({"accountId": account, "quotas": {**quotas, "policies": 7}}, lambda a: a["account"]["quotas"]["policies"] == 7),
     {"refusals": [not_found({"accountId": "999999999999", "quotas": {}})]}),
    ("ListAccounts", ({}, lambda items: {account: "DISABLED", other: "ACTIVE"}.items() <= {a["accountId"]: a["status"] for a in items}.items()),
     {"pages": ("accounts", 1)}),
    ("EnableAccount", ({"accountId": account}, lambda a: a["account"]["status"] == "ACTIVE"), {"refusals": [not_found({"accountId": "999999999999"})]}),
    ("RotateRootKey", ({}, lambda a: a["disabledAccessKeyIds"] == [s.boss["accessKeyId"]] and keep(boss=a["accessKey"]) and
                       client("tabard", s.boss).list_principals()["principals"]), {"by": lambda: client("tabard", s.boss)}),

    ("ListSigningKeys", ({}, lambda a: {"TOKENS", "ASSERTIONS", "AUDIT"} >= {k["purpose"] for k in a["keys"]} and keep(keys=a["keys"]))),
    ("RotateSigningKey", ({"purpose": "AUDIT"}, lambda a: a["key"]["keyId"] not in {k["keyId"] for k in s.keys} and recent(a["key"]["createdTime"])),
     ({"purpose": "TOKENS", "revoke": True}, lambda a: a["key"]["status"] == "CURRENT"),
     {"refusals": [("ValidationException", 400, {"purpose": "LOVE"})]}),

    ("DeleteTrustedIssuer", ({"issuer": made_up}, lambda a: True), {"refusals": [not_found({"issuer": made_up})]}),
    ("ListAuditRecords", ({"newest": True, "maxResults": 200}, audited),
     (lambda: {"nextToken": s.next}, lambda a: {r["action"] for r in a["records"]} == {"ListAuditRecords"}),
     ({"workloadName": workload, "maxResults": 200}, lambda a: a["records"]),
     ({"principalName": agent, "providerName": provider, "operation": "GetResourceOauth2Token", "deniedOnly": True, "from": yesterday, "to": tomorrow},
      lambda a: {(r["principal"], r["provider"], r["action"], r["decision"]) for r in a["records"]} == {(agent, provider, "GetResourceOauth2Token", "deny")}),
     (lambda: {"userRef": s.mails["userRef"], "outcome": "created"}, lambda a: {"created"} == {r["outcome"] for r in a["records"]}),
     ({"to": yesterday}, lambda a: a["records"] == [])),
    ("CreateAuditCheckpoint", ({}, lambda a: keep(checkpoint=a["checkpoint"]) and recent(a["checkpoint"]["time"]) and a["checkpoint"]["records"])),
    ("ListAuditCheckpoints", ({}, lambda items: s.checkpoint in items), {"pages": ("checkpoints", 1)}),
    ("VerifyAudit", ({}, lambda a: a["verified"] and a["recordsChecked"] > 100),
     (lambda: {"checkpoint": s.checkpoint["token"]}, lambda a: a["verified"] and a["recordsUnprovable"] and a["findings"] == []), {"refusals": [("ValidationException", 400, {"checkpoint": "no token"})]}),
    ("PruneAudit", (lambda: {"checkpointId": s.checkpoint["checkpointId"]}, lambda a: a["recordsRemoved"] > 100),
     {"refusals": [not_found({"checkpointId": none})]}),
]


def command():
    code, answer, words = aws("list-principals")
    assert code == 0 and names[0] in [p["name"] for p in answer["principals"]], (code, words)
    code, answer, words = aws("list-connections", "--workload-name", none)
    assert code == 0 and answer == {"connections": []}, (code, answer, words)
    code, answer, words = aws("list-principals", "--page-size", "1", "--max-items", "2")
    assert code == 0 and len(answer["principals"]) == 2 and answer["NextToken"], (code, answer, words)
    code, _, words = aws("disable-principal", "--name", none)
    assert code != 0 and "ResourceNotFoundException" in words, (code, words)


def no_endpoint():
    """Without an endpoint no request leaves: botocore would make up a host name under amazonaws.com."""
    del os.environ["AWS_ENDPOINT_URL_TABARD"]
    try:
        boto3.client("tabard", region_name=REGION).list_principals()
        raise AssertionError("a client without an endpoint called somebody")
    except EndpointProviderError as e:
        assert "AWS_ENDPOINT_URL_TABARD" in str(e), e


checked = []
for operation, *calls in STEPS:
    if callable(operation):
        operation()
        continue
    options = calls.pop() if isinstance(calls[-1], dict) else {}
    run(options.pop("by", lambda: tabard)(), operation, *calls, **options)
    if operation not in checked:
        checked.append(operation)
command()
no_endpoint()
tell("done", checked=checked, operations=sorted(set(tabard.meta.method_to_api_mapping.values())))
