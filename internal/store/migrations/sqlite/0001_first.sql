-- Times are milliseconds since 1970, 0 where there is none. Lists and maps are JSON, '' where there is none.
-- Flags are 0 or 1. Sealed values are empty where there is none. Tables of large rows keep their rowid: without it whole
-- rows would sit in the inner pages of the tree, and the tree would be deep.

CREATE TABLE vaults (
    account  TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    key_uri  TEXT    NOT NULL,
    wrapped  BLOB    NOT NULL,
    keysets  TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT;

CREATE TABLE principals (
    account   TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    roles     TEXT    NOT NULL,
    workloads TEXT    NOT NULL,
    disabled  INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    PRIMARY KEY (account, id),
    UNIQUE (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_keys (
    id        TEXT    NOT NULL PRIMARY KEY,
    account   TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    secret    BLOB    NOT NULL,
    disabled  INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    FOREIGN KEY (account, principal) REFERENCES principals (account, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX access_keys_account ON access_keys (account, id);
CREATE INDEX access_keys_principal ON access_keys (account, principal, id);

CREATE TABLE workloads (
    account     TEXT    NOT NULL,
    uid         TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    return_urls TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    deleted     INTEGER NOT NULL,
    PRIMARY KEY (account, uid)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX workloads_name ON workloads (account, name) WHERE deleted = 0;

CREATE TABLE issuers (
    account       TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    audiences     TEXT    NOT NULL,
    client_ids    TEXT    NOT NULL,
    token_use     TEXT    NOT NULL,
    workloads     TEXT    NOT NULL,
    claims        TEXT    NOT NULL,
    subject_claim TEXT    NOT NULL,
    jwks_uri      TEXT    NOT NULL,
    jwks          BLOB    NOT NULL,
    user_info     INTEGER NOT NULL,
    from_config   INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    PRIMARY KEY (account, url)
) STRICT;

CREATE TABLE users (
    account TEXT    NOT NULL,
    ref     TEXT    NOT NULL,
    sealed  BLOB    NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (account, ref)
) STRICT, WITHOUT ROWID;

CREATE TABLE providers (
    account                TEXT    NOT NULL,
    uid                    TEXT    NOT NULL,
    name                   TEXT    NOT NULL,
    callback_id            TEXT    NOT NULL,
    vendor                 TEXT    NOT NULL,
    client_id              TEXT    NOT NULL,
    auth_method            TEXT    NOT NULL,
    secret                 BLOB    NOT NULL,
    secret_id              TEXT    NOT NULL,
    discovery_url          TEXT    NOT NULL,
    issuer                 TEXT    NOT NULL,
    authorization_endpoint TEXT    NOT NULL,
    token_endpoint         TEXT    NOT NULL,
    response_types         TEXT    NOT NULL,
    token_auth_methods     TEXT    NOT NULL,
    pinned                 TEXT    NOT NULL,
    identity               TEXT    NOT NULL,
    tags                   TEXT    NOT NULL,
    version                INTEGER NOT NULL,
    created                INTEGER NOT NULL,
    updated                INTEGER NOT NULL,
    PRIMARY KEY (account, uid),
    UNIQUE (account, name),
    UNIQUE (callback_id)
) STRICT;

CREATE TABLE connections (
    account     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    workload    TEXT    NOT NULL,
    user_ref    TEXT    NOT NULL,
    provider    TEXT    NOT NULL,
    flow        TEXT    NOT NULL,
    asserted    INTEGER NOT NULL,
    resources   TEXT    NOT NULL,
    audiences   TEXT    NOT NULL,
    requested   TEXT    NOT NULL,
    granted     TEXT    NOT NULL,
    access      BLOB    NOT NULL,
    refresh     BLOB    NOT NULL,
    token_type  TEXT    NOT NULL,
    expires     INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    identity    TEXT    NOT NULL,
    fence       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    PRIMARY KEY (account, key),
    UNIQUE (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
) STRICT;
CREATE INDEX connections_workload ON connections (account, workload);
CREATE INDEX connections_user ON connections (account, user_ref);
CREATE INDEX connections_provider ON connections (account, provider);

-- The journal of uses of refresh tokens and codes. subject is the id of a connection or of a flow.
CREATE TABLE attempts (
    account    TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    fence      INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    finished   INTEGER NOT NULL,
    outcome    TEXT    NOT NULL,
    PRIMARY KEY (account, subject, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE flows (
    id            TEXT    NOT NULL PRIMARY KEY,
    account       TEXT    NOT NULL,
    workload      TEXT    NOT NULL,
    workload_name TEXT    NOT NULL,
    generation    INTEGER NOT NULL,
    token         TEXT    NOT NULL,
    user_ref      TEXT    NOT NULL,
    user_kind     TEXT    NOT NULL,
    provider      TEXT    NOT NULL,
    provider_name TEXT    NOT NULL,
    identity      TEXT    NOT NULL,
    resources     TEXT    NOT NULL,
    audiences     TEXT    NOT NULL,
    scopes        TEXT    NOT NULL,
    requested     TEXT    NOT NULL,
    return_url    TEXT    NOT NULL,
    session       BLOB    NOT NULL,
    custom_state  BLOB    NOT NULL,
    custom_params BLOB    NOT NULL,
    code          BLOB    NOT NULL,
    verifier      BLOB    NOT NULL,
    state         TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    fence         INTEGER NOT NULL,
    lease_until   INTEGER NOT NULL,
    connection    TEXT    NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    visits        INTEGER NOT NULL,
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
) STRICT;
CREATE INDEX flows_expires ON flows (expires);
CREATE INDEX flows_provider ON flows (account, provider);

CREATE TABLE visits (
    state    TEXT    NOT NULL PRIMARY KEY,
    flow     TEXT    NOT NULL REFERENCES flows (id) ON DELETE CASCADE,
    cookie   TEXT    NOT NULL,
    verifier BLOB    NOT NULL,
    issuer   TEXT    NOT NULL,
    iss_sent INTEGER NOT NULL,
    spent    INTEGER NOT NULL,
    created  INTEGER NOT NULL
) STRICT;
CREATE INDEX visits_flow ON visits (flow);

-- (tx, seq) is the order of commits: tx names the transaction, seq the place in it.
CREATE TABLE audit (
    account      TEXT    NOT NULL,
    tx           INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    writer       TEXT    NOT NULL,
    sequence     INTEGER NOT NULL,
    time         INTEGER NOT NULL,
    principal    TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    access_key   TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    allow        INTEGER NOT NULL,
    rule         TEXT    NOT NULL,
    resource     TEXT    NOT NULL,
    workload     TEXT    NOT NULL,
    workload_uid TEXT    NOT NULL,
    user_ref     TEXT    NOT NULL,
    asserted     INTEGER NOT NULL,
    assertable   INTEGER NOT NULL,
    provider     TEXT    NOT NULL,
    flow         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    connection   TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    outcome      TEXT    NOT NULL,
    detail       TEXT    NOT NULL,
    prev         BLOB    NOT NULL,
    hash         BLOB    NOT NULL,
    PRIMARY KEY (account, tx, seq),
    UNIQUE (writer, sequence)
) STRICT;
CREATE INDEX audit_workload ON audit (account, workload, tx, seq) WHERE workload <> '';
