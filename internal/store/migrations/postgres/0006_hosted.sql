-- The clients by which the server itself signs users in (hosted consent).
CREATE TABLE issuer_logins (
    account TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, issuer)
);

-- One sign-in of a browser for a hosted consent session. Cookie and session are SHA-256 digests.
CREATE TABLE hosted_logins (
    state TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    flow TEXT COLLATE "C" NOT NULL REFERENCES flows (id) ON DELETE CASCADE,
    cookie TEXT COLLATE "C" NOT NULL,
    verifier BYTEA NOT NULL,
    iss_sent BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    allowed BIGINT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX hosted_logins_flow ON hosted_logins (flow);
