"""The web application behind a return URL, where a user's browser comes back after consent.

The script tells {"event": "consent", "url": …, "callback": …}; the test registers the callback URL at the provider and
walks the user's browser through url, which ends here.
"""

import http.server
import queue
import threading
import urllib.parse

from tell import tell

PATIENCE = 60  # seconds that a browser may take


class Application:
    """A listener on loopback; url is where it wants browsers to return."""

    def __init__(self):
        returned = self.returned = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                at = urllib.parse.urlsplit(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"you may close this window")
                if at.path == "/oauth2/callback":
                    returned.put(dict(urllib.parse.parse_qsl(at.query)))

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/oauth2/callback"

    def browser(self, url, callback):
        """Sends the user to url and returns the query that the browser came back with."""
        tell("consent", url=url, callback=callback)
        return self.returned.get(timeout=PATIENCE)

    def consent(self, data, callback, user, **ask):
        """Gets a token of a user who consents: ask is of GetResourceOauth2Token, user of CompleteResourceTokenAuth."""
        first = data.get_resource_oauth2_token(**ask)
        assert "accessToken" not in first and first["sessionStatus"] == "IN_PROGRESS", sorted(first)
        back = self.browser(first["authorizationUrl"], callback)
        assert back["session_id"] == first["sessionUri"], sorted(back)
        assert back.get("state") == ask.get("customState"), back
        poll = {k: v for k, v in ask.items() if k != "forceAuthentication"} | {"sessionUri": first["sessionUri"]}
        waiting = data.get_resource_oauth2_token(**poll)
        assert "accessToken" not in waiting and waiting["sessionStatus"] == "IN_PROGRESS", sorted(waiting)
        data.complete_resource_token_auth(sessionUri=first["sessionUri"], userIdentifier=user)
        return data.get_resource_oauth2_token(**poll)["accessToken"]
