"""How tabard_client.py does its steps, and asks the aws command."""

import datetime
import json
import subprocess
import sys

from botocore import xform_name

from tell import setting


def recent(when):
    assert abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) < 120, when
    return True


def refused(method, exception, status, arguments):
    """Calls method, which must fail with that exception of the model."""
    kind = getattr(method.__self__.exceptions, exception)
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


def paged(client, operation, member, size, arguments):
    items = []
    for page in client.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments):
        assert len(page[member]) <= size, (operation, len(page[member]))
        items += page[member]
    return items


def run(client, operation, *calls, pages=None, refusals=()):
    """Does one step: each call is (arguments, check), and so is each of a paginator's walks (pages: member and size); a
    check gets the answer or the items. What arguments are known only by then are given as a function."""
    method = getattr(client, xform_name(operation))
    for arguments, check in calls:
        arguments = arguments() if callable(arguments) else arguments
        answer = paged(client, xform_name(operation), *pages, arguments) if pages else method(**arguments)
        assert check(answer), (operation, answer)
    for exception, status, arguments in refusals() if callable(refusals) else refusals:
        refused(method, exception, status, arguments)


def aws(*arguments):
    """Runs the aws command with our environment, and returns its exit code, its answer and its words."""
    run = subprocess.run([sys.executable, "-m", "awscli", "tabard", *arguments, "--region", setting("AWS_REGION"), "--output", "json"],
                         capture_output=True, text=True, timeout=60)
    return run.returncode, json.loads(run.stdout) if run.stdout.strip() else None, run.stderr
