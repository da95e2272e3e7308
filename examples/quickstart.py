"""A small agent that reads its user's calendar with the official bedrock_agentcore package. README.md says how to run it.

Outside AgentCore Runtime the decorator makes a workload identity and a user id, kept in ./.agentcore.json. Here one process
is agent and web application, with the root access key that `tabard env` points at: that is for a laptop. In a real one
users log in, and the agent trades the token of that login (boto3: get_workload_access_token_for_jwt); agent and web
application have keys of their own, roles agent and consent-app; and the login session says who sits at the browser.
"""
import json
import os
import threading
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from bedrock_agentcore.identity import requires_access_token
from bedrock_agentcore.services.identity import IdentityClient, UserIdIdentifier
from botocore.exceptions import ClientError

CALENDAR = os.environ.get("CALENDAR_ENDPOINT", "https://www.googleapis.com/calendar/v3/")


class Connected(BaseHTTPRequestHandler):
    """Where the browser comes back to. The provider's code is redeemed only after the service was told who sits there."""
    def do_GET(self):
        session = parse_qs(urlsplit(self.path).query).get("session_id")
        if not session:
            return self.send_error(404)
        user = UserIdIdentifier(user_id=json.load(open(".agentcore.json"))["user_id"])
        try:
            IdentityClient(os.environ["AWS_REGION"]).complete_resource_token_auth(session[0], user)
        except ClientError as e:
            return self.send_error(403, "Not connected", e.response["Error"]["Message"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Connected. You can close this window.")

    def log_message(self, *_): ...  # the address names a session


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8081"))), Connected)


@requires_access_token(
    provider_name="google-calendar",
    scopes=["https://www.googleapis.com/auth/calendar.events"],
    auth_flow="USER_FEDERATION",
    callback_url=f"http://127.0.0.1:{server.server_port}/connected",
    custom_parameters={"access_type": "offline"},  # asks for a refresh token
    on_auth_url=lambda url: print("Please open", url, flush=True),
)
def upcoming(*, access_token):
    query = urlencode({"timeMin": datetime.now(timezone.utc).isoformat(), "singleEvents": "true", "orderBy": "startTime"})
    request = urllib.request.Request(f"{CALENDAR}calendars/primary/events?{query}", headers={"Authorization": f"Bearer {access_token}"})
    with urllib.request.urlopen(request) as answer:
        return [event.get("summary", "(busy)") for event in json.load(answer)["items"]]


threading.Thread(target=server.serve_forever, daemon=True).start()
print("Next in your calendar:", ", ".join(upcoming()) or "nothing")
