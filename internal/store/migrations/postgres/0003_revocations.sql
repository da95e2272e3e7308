-- Tokens to revoke at their providers. The ciphertext in token is a connection's, under the Ref that it had there: the
-- connection itself may be gone. It is erased when the revocation ends.
CREATE TABLE revocations (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    connection TEXT COLLATE "C" NOT NULL,
    in_column TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    identity TEXT COLLATE "C" NOT NULL,
    token BYTEA NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    tries BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    due BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
);
CREATE INDEX revocations_due ON revocations (due) WHERE state = 'pending';
CREATE INDEX revocations_connection ON revocations (account, connection);
CREATE INDEX revocations_provider ON revocations (account, provider);
