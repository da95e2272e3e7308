"""Our own operations through boto3.client("tabard"), and by the aws command: neither has anything of ours but the model
under AWS_DATA_PATH.

Environment: AWS's variables as in threelo.py, with the root key; AWS_DATA_PATH, the folder with the model;
AWS_ENDPOINT_URL_TABARD; PUBLIC_URL, what the server calls itself; ISSUER, an OpenID provider that nobody has trusted yet,
where CLIENT_ID with CLIENT_SECRET may use client_credentials for M2M_SCOPE and users may consent, and USER_TOKEN of alice
there, for CLIENT_OF_USERS; CORPORATE_ISSUER and CORPORATE_TOKEN, an access token that its UserInfo endpoint takes, for
CLIENT_OF_USERS too. Events: consent {url, callback} for each browser that is wanted (application.py); at the end done
{checked, operations}, what held and what boto3 offers. The first assert that fails ends it with exit code 1 and a
traceback.

STEPS is the whole of it: one entry for each operation, in order. A new operation is a new entry.
"""

import datetime
import json
import os
import subprocess
import sys
import types
import uuid

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError, EndpointProviderError

from application import Application
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
missing = {"connectionId": f"cn_{mark}"}
s = types.SimpleNamespace()  # what one step finds and a later one asks with
JWKS = json.dumps({"keys": [{  # RFC 7517 appendix A.1
    "kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]})


def keep(**found):
    """Remembers what a later step asks with."""
    s.__dict__.update(found)
    return True


def recent(when):
    assert abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) < 120, when
    return True


def refused(method, exception, status, arguments):
    """Calls method, which must fail with that exception of the model."""
    kind = getattr(tabard.exceptions, exception)
    try:
        method(**arguments)
    except kind as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == status, e.response
        assert e.response["ResponseMetadata"]["RequestId"], "no x-amzn-RequestId"
        if exception == "ValidationException":
            assert e.response["reason"], e.response
        return
    raise AssertionError(f"{method.__name__} was not refused with {exception}")


def not_found(arguments):
    return ("ResourceNotFoundException", 404, arguments)


def paged(operation, member, size, arguments):
    items = []
    for page in tabard.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments):
        assert len(page[member]) <= size, (operation, len(page[member]))
        items += page[member]
    return items


def run(operation, *calls, pages=None, refusals=()):
    """Does one step: each call is (arguments, check), and so is each of a paginator's walks (pages: member and size); a
    check gets the answer or the items. What arguments are known only by then are given as a function."""
    method = getattr(tabard, xform_name(operation))
    for arguments, check in calls:
        arguments = arguments() if callable(arguments) else arguments
        answer = paged(xform_name(operation), *pages, arguments) if pages else method(**arguments)
        assert check(answer), (operation, answer)
    for exception, status, arguments in refusals() if callable(refusals) else refusals:
        refused(method, exception, status, arguments)


def own(**arguments):
    """A client with the key that CreateAccessKey made."""
    client = boto3.client("tabard", region_name=REGION, aws_access_key_id=s.key["accessKeyId"],
                          aws_secret_access_key=s.key["secretAccessKey"])
    return client.list_principals(**arguments)


def key_works(answer):
    """An agent's key works, and may do what its role allows."""
    refused(own, "AccessDeniedException", 403, {})
    return answer["accessKey"]["status"] == "ACTIVE"


def key_is_dead(answer):
    try:
        own()
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
       "subjectClaim": "oid", "jwks": JWKS}, lambda a: a["trustedIssuer"]["claims"] and a["trustedIssuer"]["jwksSource"]),
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

    ("DeleteTrustedIssuer", ({"issuer": made_up}, lambda a: True), {"refusals": [not_found({"issuer": made_up})]}),
    ("ListAuditRecords", ({"newest": True, "maxResults": 200}, audited),
     (lambda: {"nextToken": s.next}, lambda a: {r["action"] for r in a["records"]} == {"ListAuditRecords"}),
     ({"workloadName": workload, "maxResults": 200}, lambda a: a["records"])),
]


def aws(*arguments):
    """Runs the aws command with our environment, and returns its exit code, its answer and its words."""
    run = subprocess.run([sys.executable, "-m", "awscli", "tabard", *arguments, "--region", REGION, "--output", "json"],
                         capture_output=True, text=True, timeout=60)
    return run.returncode, json.loads(run.stdout) if run.stdout.strip() else None, run.stderr


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
    run(operation, *calls, **options)
    if operation not in checked:
        checked.append(operation)
command()
no_endpoint()
tell("done", checked=checked, operations=sorted(set(tabard.meta.method_to_api_mapping.values())))
