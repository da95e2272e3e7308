-- Times are milliseconds since 1970, 0 where there is none. Lists and maps are JSON, '' where there is none.
-- Flags are 0 or 1. Sealed values are empty where there is none.

CREATE TABLE vaults (
    account TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    key_uri TEXT COLLATE "C" NOT NULL,
    wrapped BYTEA NOT NULL,
    keysets TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    PRIMARY KEY (account, name)
);

CREATE TABLE principals (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    roles TEXT COLLATE "C" NOT NULL,
    workloads TEXT COLLATE "C" NOT NULL,
    disabled BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, id),
    UNIQUE (account, name)
);

CREATE TABLE access_keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    disabled BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    FOREIGN KEY (account, principal) REFERENCES principals (account, id)
);
CREATE INDEX access_keys_account ON access_keys (account, id);
CREATE INDEX access_keys_principal ON access_keys (account, principal, id);

CREATE TABLE workloads (
    account TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    return_urls TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    PRIMARY KEY (account, uid)
);
CREATE UNIQUE INDEX workloads_name ON workloads (account, name) WHERE deleted = 0;

CREATE TABLE issuers (
    account TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    audiences TEXT COLLATE "C" NOT NULL,
    client_ids TEXT COLLATE "C" NOT NULL,
    token_use TEXT COLLATE "C" NOT NULL,
    workloads TEXT COLLATE "C" NOT NULL,
    claims TEXT COLLATE "C" NOT NULL,
    subject_claim TEXT COLLATE "C" NOT NULL,
    jwks_uri TEXT COLLATE "C" NOT NULL,
    jwks BYTEA NOT NULL,
    user_info BIGINT NOT NULL,
    from_config BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, url)
);

CREATE TABLE users (
    account TEXT COLLATE "C" NOT NULL,
    ref TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, ref)
);

CREATE TABLE providers (
    account TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    callback_id TEXT COLLATE "C" NOT NULL,
    vendor TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    auth_method TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    secret_id TEXT COLLATE "C" NOT NULL,
    discovery_url TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    authorization_endpoint TEXT COLLATE "C" NOT NULL,
    token_endpoint TEXT COLLATE "C" NOT NULL,
    response_types TEXT COLLATE "C" NOT NULL,
    token_auth_methods TEXT COLLATE "C" NOT NULL,
    pinned TEXT COLLATE "C" NOT NULL,
    identity TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, uid),
    UNIQUE (account, name),
    UNIQUE (callback_id)
);

CREATE TABLE connections (
    account TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    flow TEXT COLLATE "C" NOT NULL,
    asserted BIGINT NOT NULL,
    resources TEXT COLLATE "C" NOT NULL,
    audiences TEXT COLLATE "C" NOT NULL,
    requested TEXT COLLATE "C" NOT NULL,
    granted TEXT COLLATE "C" NOT NULL,
    access BYTEA NOT NULL,
    refresh BYTEA NOT NULL,
    token_type TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    identity TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, key),
    UNIQUE (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
);
CREATE INDEX connections_workload ON connections (account, workload);
CREATE INDEX connections_user ON connections (account, user_ref);
CREATE INDEX connections_provider ON connections (account, provider);

-- The journal of uses of refresh tokens and codes. subject is the id of a connection or of a flow.
CREATE TABLE attempts (
    account TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    started BIGINT NOT NULL,
    finished BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account, subject, fence)
);

CREATE TABLE flows (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    workload_name TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    token TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    user_kind TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    provider_name TEXT COLLATE "C" NOT NULL,
    identity TEXT COLLATE "C" NOT NULL,
    resources TEXT COLLATE "C" NOT NULL,
    audiences TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    requested TEXT COLLATE "C" NOT NULL,
    return_url TEXT COLLATE "C" NOT NULL,
    session      BYTEA NOT NULL,
    custom_state BYTEA NOT NULL,
    custom_params BYTEA NOT NULL,
    code BYTEA NOT NULL,
    verifier BYTEA NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    connection TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    visits BIGINT NOT NULL,
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
);
CREATE INDEX flows_expires ON flows (expires);
CREATE INDEX flows_provider ON flows (account, provider);

CREATE TABLE visits (
    state TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    flow TEXT COLLATE "C" NOT NULL REFERENCES flows (id) ON DELETE CASCADE,
    cookie TEXT COLLATE "C" NOT NULL,
    verifier BYTEA NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    iss_sent BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX visits_flow ON visits (flow);

-- (tx, seq) is the order of commits: tx names the transaction, seq the place in it.
CREATE TABLE audit (
    account TEXT COLLATE "C" NOT NULL,
    tx BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    writer TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    time BIGINT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    access_key TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    allow BIGINT NOT NULL,
    rule TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    workload_uid TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    asserted BIGINT NOT NULL,
    assertable BIGINT NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    flow TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    connection TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    prev BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (account, tx, seq),
    UNIQUE (writer, sequence)
);
CREATE INDEX audit_workload ON audit (account, workload, tx, seq) WHERE workload <> '';

-- What xids are counted from. It is raised when the database comes back in another cluster, whose xids are lower.
CREATE TABLE audit_base (base BIGINT NOT NULL);
INSERT INTO audit_base (base) VALUES (0);
