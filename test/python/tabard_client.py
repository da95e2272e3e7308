"""Our own operations through boto3.client("tabard") and the aws command, from the published model and nothing else.

Environment: AWS's variables as in threelo.py, with the root key; AWS_DATA_PATH, the folder with the model;
AWS_ENDPOINT_URL_TABARD; ISSUER, an OpenID provider that nobody has trusted yet, where CLIENT_ID with CLIENT_SECRET may use
client_credentials for M2M_SCOPE. Events: checked {operation}, once for
each that held; at the end done {count}. The first assert that fails ends it with exit code 1 and a traceback.
"""

import datetime
import json
import os
import subprocess
import sys
import uuid

import boto3
from botocore.exceptions import ClientError, EndpointProviderError

from tell import setting, tell

REGION = setting("AWS_REGION")
tabard = boto3.client("tabard", region_name=REGION)
mark = uuid.uuid4().hex[:8]
checked = []


def held(operation):
    checked.append(operation)
    tell("checked", operation=operation)


def refused(exception, status, method, **arguments):
    """Calls method, which must fail with that exception of the model, and returns the parsed answer."""
    try:
        method(**arguments)
    except exception as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == status, e.response
        assert e.response["ResponseMetadata"]["RequestId"], "no x-amzn-RequestId"
        return e.response
    raise AssertionError(f"{method.__name__} was not refused with {exception.__name__}")


def recent(when):
    assert abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) < 120, when


def paged(operation, member, size, **arguments):
    items = []
    for page in tabard.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments):
        assert len(page[member]) <= size, (operation, len(page[member]))
        items += page[member]
    return items


def aws(*arguments):
    """Runs the aws command with our environment, and returns its exit code, its answer and its words."""
    run = subprocess.run([sys.executable, "-m", "awscli", "tabard", *arguments, "--region", REGION, "--output", "json"],
                         capture_output=True, text=True, timeout=60)
    return run.returncode, json.loads(run.stdout) if run.stdout.strip() else None, run.stderr


def principals():
    names = [f"tests-{mark}-{i}" for i in range(3)]
    for name in names:
        made = tabard.create_principal(name=name, roles=["agent"], workloads=["calendar-agent"])["principal"]
        assert made["name"] == name and made["roles"] == ["agent"] and made["workloads"] == ["calendar-agent"], made
        recent(made["createdTime"])
    refused(tabard.exceptions.ConflictException, 409, tabard.create_principal, name=names[0], roles=["auditor"])
    bad = refused(tabard.exceptions.ValidationException, 400, tabard.create_principal, name="no spaces", roles=["auditor"])
    assert bad["reason"] == "FieldValidationFailed" and bad["fieldList"][0]["name"] == "name", bad
    held("CreatePrincipal")

    listed = [p["name"] for p in paged("list_principals", "principals", 2)]
    assert len(listed) == len(set(listed)) and set(names) <= set(listed), listed
    held("ListPrincipals")

    none = f"none-{mark}"
    assert tabard.disable_principal(name=names[0])["principal"]["status"] == "DISABLED"
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.disable_principal, name=none)
    held("DisablePrincipal")
    assert tabard.enable_principal(name=names[0])["principal"]["status"] == "ACTIVE"
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.enable_principal, name=none)
    held("EnablePrincipal")
    return names[0]


def access_keys(principal):
    made = tabard.create_access_key(principalName=principal)["accessKey"]
    assert made["principalName"] == principal and made["secretAccessKey"].startswith("tabard_"), sorted(made)
    recent(made["createdTime"])
    held("CreateAccessKey")

    second = tabard.create_access_key(principalName=principal)["accessKey"]["accessKeyId"]
    listed = paged("list_access_keys", "accessKeys", 1, principalName=principal)
    assert {k["accessKeyId"] for k in listed} == {made["accessKeyId"], second}, listed
    assert all("secretAccessKey" not in k for k in listed), "a secret access key was shown again"
    held("ListAccessKeys")

    # A key works, may do what its role allows, and does nothing once disabled.
    own = boto3.client("tabard", region_name=REGION, aws_access_key_id=made["accessKeyId"],
                       aws_secret_access_key=made["secretAccessKey"])
    refused(own.exceptions.AccessDeniedException, 403, own.list_principals)
    key = tabard.disable_access_key(accessKeyId=made["accessKeyId"])["accessKey"]
    assert key["status"] == "DISABLED", key
    try:
        own.list_principals()
        raise AssertionError("a disabled key works")
    except ClientError as e:
        assert e.response["Error"]["Code"] == "UnrecognizedClientException", e.response
    held("DisableAccessKey")
    key = tabard.enable_access_key(accessKeyId=made["accessKeyId"])["accessKey"]
    assert key["status"] == "ACTIVE", key
    refused(own.exceptions.AccessDeniedException, 403, own.list_principals)
    held("EnableAccessKey")


def issuers():
    issuer = setting("ISSUER")
    made = tabard.create_trusted_issuer(issuer=issuer, audiences=["an-application"])["trustedIssuer"]
    assert made["issuer"] == issuer and made["audiences"] == ["an-application"], made
    recent(made["createdTime"])
    refused(tabard.exceptions.ConflictException, 409, tabard.create_trusted_issuer, issuer=issuer, audiences=["b"])
    held("CreateTrustedIssuer")
    assert issuer in [i["issuer"] for i in paged("list_trusted_issuers", "trustedIssuers", 1)]
    held("ListTrustedIssuers")
    back = tabard.set_issuer_login(issuer=issuer, clientId="an-application", clientSecret="not-checked-yet")["redirectUri"]
    assert back.startswith(os.environ["AWS_ENDPOINT_URL_TABARD"]), back
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.set_issuer_login, clientId="a",
            issuer=f"https://{mark}.example.com")  # development mode trusts any issuer on loopback
    held("SetIssuerLogin")
    tabard.delete_trusted_issuer(issuer=issuer)
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.delete_trusted_issuer, issuer=issuer)
    held("DeleteTrustedIssuer")


def workloads():
    control = boto3.client("bedrock-agentcore-control", region_name=REGION)
    name, url = f"workload-{mark}", "http://localhost:8081/oauth2/callback"
    made = control.create_workload_identity(name=name)
    none = f"none-{mark}"
    assert tabard.add_return_url(workloadName=name, url=url)["allowedResourceOauth2ReturnUrls"] == [url]
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.add_return_url, workloadName=none, url=url)
    held("AddReturnUrl")
    assert tabard.remove_return_url(workloadName=name, url=url)["allowedResourceOauth2ReturnUrls"] == []
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.remove_return_url, workloadName=none, url=url)
    held("RemoveReturnUrl")
    control.delete_workload_identity(name=name)
    back = tabard.restore_workload_identity(workloadName=name)
    assert back["workloadName"] == name and back["workloadIdentityArn"] == made["workloadIdentityArn"], back
    assert control.get_workload_identity(name=name)["name"] == name
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.restore_workload_identity, workloadName=none)
    held("RestoreWorkloadIdentity")

    assert paged("list_connections", "connections", 2) == [], "nobody has consented to anything"
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.get_connection, connectionId=f"cn_{mark}")
    held("ListConnections")
    data = boto3.client("bedrock-agentcore", region_name=REGION)
    wat = data.get_workload_access_token(workloadName=name)["workloadAccessToken"]
    assert tabard.describe_user(workloadIdentityToken=wat)["kind"] == "none", "a machine has a user"
    refused(tabard.exceptions.UnauthorizedException, 401, tabard.describe_user, workloadIdentityToken="no token")
    held("DescribeUser")
    refused(tabard.exceptions.ValidationException, 400, tabard.get_user_info, workloadIdentityToken=wat)
    refused(tabard.exceptions.UnauthorizedException, 401, tabard.get_user_info, workloadIdentityToken="no token")
    held("GetUserInfo")
    return name


def connections(workload):
    """A machine's connection, from its first token to its deletion."""
    control = boto3.client("bedrock-agentcore-control", region_name=REGION)
    data = boto3.client("bedrock-agentcore", region_name=REGION)
    provider, heir, missing = f"machine-{mark}", f"heir-{mark}", f"cn_{mark}"
    control.create_oauth2_credential_provider(
        name=provider, credentialProviderVendor="CustomOauth2",
        oauth2ProviderConfigInput={"customOauth2ProviderConfig": {
            "oauthDiscovery": {"discoveryUrl": setting("ISSUER") + "/.well-known/openid-configuration"},
            "clientId": setting("CLIENT_ID"), "clientSecret": setting("CLIENT_SECRET")}})
    checks = tabard.test_provider(providerName=provider)["checks"]
    assert {c["name"]: c["status"] for c in checks}["metadata"] == "pass", checks
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.test_provider, providerName=f"none-{mark}")
    held("TestProvider")

    wat = data.get_workload_access_token(workloadName=workload)["workloadAccessToken"]
    data.get_resource_oauth2_token(workloadIdentityToken=wat, resourceCredentialProviderName=provider, oauth2Flow="M2M",
                                   scopes=[setting("M2M_SCOPE")])
    [listed] = paged("list_connections", "connections", 2, providerName=provider)
    one = {"connectionId": listed["connectionId"]}
    got = tabard.get_connection(**one)["connection"]
    assert got == listed and got["workloadName"] == workload and got["providerName"] == provider, (got, listed)
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.get_connection, connectionId=missing)
    held("GetConnection")

    told = tabard.report_token_invalid(workloadIdentityToken=wat, **one)
    assert told["connectionState"] in ("active", "needs_reauth"), told
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.report_token_invalid, workloadIdentityToken=wat,
            connectionId=missing)
    held("ReportTokenInvalid")

    # A machine's connection is nobody's consent, and stays where it is.
    control.create_workload_identity(name=heir)
    refused(tabard.exceptions.ConflictException, 409, tabard.transfer_connection, workloadName=heir, **one)
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.transfer_connection, workloadName=heir,
            connectionId=missing)
    held("TransferConnection")

    ended = tabard.revoke_connection(skipUpstream=True, **one)
    assert ended["upstream"] == "skipped" and ended["connection"]["state"] == "revoked", ended
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.revoke_connection, connectionId=missing)
    held("RevokeConnection")
    tabard.delete_connection(**one)
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.get_connection, **one)
    refused(tabard.exceptions.ResourceNotFoundException, 404, tabard.delete_connection, **one)
    held("DeleteConnection")


def audit():
    page = tabard.list_audit_records(newest=True, maxResults=100)
    for r in page["records"]:
        recent(r["time"])
    assert "DeleteTrustedIssuer" in {r["action"] for r in page["records"]}, sorted({r["action"] for r in page["records"]})
    # The trail has no end: reading it is recorded too, so it has no paginator.
    assert not tabard.can_paginate("list_audit_records")
    rest = tabard.list_audit_records(nextToken=page["nextToken"])["records"]
    assert rest and {r["action"] for r in rest} == {"ListAuditRecords"}, rest
    held("ListAuditRecords")


def command(principal):
    code, answer, words = aws("list-principals")
    assert code == 0 and principal in [p["name"] for p in answer["principals"]], (code, words)
    code, answer, words = aws("list-connections")
    assert code == 0 and answer == {"connections": []}, (code, answer, words)
    code, answer, words = aws("list-principals", "--page-size", "1", "--max-items", "2")
    assert code == 0 and len(answer["principals"]) == 2 and answer["NextToken"], (code, answer, words)
    code, _, words = aws("disable-principal", "--name", f"none-{mark}")
    assert code != 0 and "ResourceNotFoundException" in words, (code, words)


def no_endpoint():
    """Without an endpoint no request leaves: botocore would make up a host name under amazonaws.com."""
    del os.environ["AWS_ENDPOINT_URL_TABARD"]
    try:
        boto3.client("tabard", region_name=REGION).list_principals()
        raise AssertionError("a client without an endpoint called somebody")
    except EndpointProviderError as e:
        assert "AWS_ENDPOINT_URL_TABARD" in str(e), e


principal = principals()
access_keys(principal)
connections(workloads())
issuers()
audit()
command(principal)
no_endpoint()
operations = set(tabard.meta.method_to_api_mapping.values())
tell("done", count=len(checked), operations=sorted(operations))
