"""What the scripts share: events on standard output, one JSON object a line, and never a token in them."""

import hashlib
import json
import os
import sys


def tell(event, **members):
    print(json.dumps({"event": event, **members}), flush=True)


def fingerprint(token):
    """The first 8 hexadecimal digits of the SHA-256, as secret.Text.Fingerprint in Go."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def setting(name, default=None):
    value = os.environ.get(name, default)
    if value is None:
        sys.exit(f"the environment has no {name}")
    return value
