-- Tokens to revoke at their providers. The ciphertext in token is a connection's, under the Ref that it had there: the
-- connection itself may be gone. It is erased when the revocation ends.
CREATE TABLE revocations (
    account     TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    connection  TEXT    NOT NULL,
    in_column   TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    workload    TEXT    NOT NULL,
    user_ref    TEXT    NOT NULL,
    provider    TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    identity    TEXT    NOT NULL,
    token       BLOB    NOT NULL,
    state       TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    tries       INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    due         INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
) STRICT;
CREATE INDEX revocations_due ON revocations (due) WHERE state = 'pending';
CREATE INDEX revocations_connection ON revocations (account, connection);
CREATE INDEX revocations_provider ON revocations (account, provider);
