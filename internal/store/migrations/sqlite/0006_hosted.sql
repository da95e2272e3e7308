-- The clients by which the server itself signs users in (hosted consent).
CREATE TABLE issuer_logins (
    account   TEXT    NOT NULL,
    issuer    TEXT    NOT NULL,
    client_id TEXT    NOT NULL,
    secret    BLOB    NOT NULL,
    scopes    TEXT    NOT NULL,
    updated   INTEGER NOT NULL,
    PRIMARY KEY (account, issuer)
) STRICT;

-- One sign-in of a browser for a hosted consent session. Cookie and session are SHA-256 digests.
CREATE TABLE hosted_logins (
    state    TEXT    NOT NULL PRIMARY KEY,
    flow     TEXT    NOT NULL REFERENCES flows (id) ON DELETE CASCADE,
    cookie   TEXT    NOT NULL,
    verifier BLOB    NOT NULL,
    iss_sent INTEGER NOT NULL,
    spent    INTEGER NOT NULL,
    session  TEXT    NOT NULL,
    allowed  INTEGER NOT NULL,
    created  INTEGER NOT NULL
) STRICT;
CREATE INDEX hosted_logins_flow ON hosted_logins (flow);
