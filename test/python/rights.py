"""What tabard_client.py needs for rights and revocations: policies, and providers that do not revoke."""

import http.server
import json
import threading
import uuid

# An agent may mint, and have tokens whose scopes are openid at most.
AGENTS_POLICY = """permit (principal == Tabard::Principal::"%s", action in [Tabard::Action::"mint", Tabard::Action::"release"], resource)
when { ["openid"].containsAll(context.scopes) };"""
# A policy that can be stored, and is warned of.
NOBODYS_POLICY = 'permit (principal in Tabard::Role::"nobody", action in Tabard::Action::"mint", resource);'


class Provider:
    """A provider on loopback that gives machines tokens, and answers revocations with a status. metadata is what it says of
    itself, at url."""

    def __init__(self, status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, metadata)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/token":
                    self.answer(200, {"access_token": uuid.uuid4().hex, "token_type": "Bearer", "expires_in": 3600})
                else:
                    self.answer(status, {"error": "unsupported_token_type"})

            def answer(self, status, document):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        issuer = f"http://127.0.0.1:{server.server_port}"
        metadata = self.metadata = {"issuer": issuer, "authorization_endpoint": issuer + "/authorize",
                                    "token_endpoint": issuer + "/token", "revocation_endpoint": issuer + "/revoke"}
        self.url = issuer + "/.well-known/openid-configuration"
        threading.Thread(target=server.serve_forever, daemon=True).start()
