-- Revocations of many connections at once, and what became of each connection. A job is what survives the server that
-- began it: phase says how far it came, and every step may be taken again.
CREATE TABLE revocation_jobs (
    account        TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    workload       TEXT    NOT NULL, -- name
    user_ref       TEXT    NOT NULL,
    provider       TEXT    NOT NULL, -- name
    whole_account  INTEGER NOT NULL,
    upstream       INTEGER NOT NULL,
    erase          INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    principal      TEXT    NOT NULL,
    principal_name TEXT    NOT NULL,
    access_key     TEXT    NOT NULL,
    phase          TEXT    NOT NULL,
    delegations    INTEGER NOT NULL,
    receipt        TEXT    NOT NULL,
    due            INTEGER NOT NULL,
    lease_until    INTEGER NOT NULL,
    created        INTEGER NOT NULL,
    finished       INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT;
CREATE INDEX revocation_jobs_due ON revocation_jobs (due) WHERE phase <> 'done';

CREATE TABLE revocation_items (
    account       TEXT    NOT NULL,
    job           TEXT    NOT NULL,
    connection    TEXT    NOT NULL, -- id; the connection may be gone
    workload_name TEXT    NOT NULL,
    user_ref      TEXT    NOT NULL,
    provider_name TEXT    NOT NULL,
    ended         INTEGER NOT NULL,
    generation    INTEGER NOT NULL, -- of the tokens that are revoked at the provider
    upstream      TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    PRIMARY KEY (account, job, connection),
    FOREIGN KEY (account, job) REFERENCES revocation_jobs (account, id) ON DELETE CASCADE
) STRICT;
