-- Signing keys can be replaced within their period and revoked: a revoked key has no private half any more. begins is when a
-- key signs first.
CREATE TABLE signing_keys_2 (
    purpose TEXT NOT NULL,
    period INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    kid TEXT NOT NULL UNIQUE,
    public TEXT NOT NULL,
    sealed BLOB NOT NULL,
    begins INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (purpose, period, serial)
) STRICT;
INSERT INTO signing_keys_2 SELECT purpose, period, 0, kid, public, sealed, period * 2592000000, 0, created_at FROM signing_keys;
DROP TABLE signing_keys;
ALTER TABLE signing_keys_2 RENAME TO signing_keys;

-- The tokens for others that were exchanged for workload access tokens, until they end: what they rest on, so that they can
-- be told for dead, never who the user is.
CREATE TABLE exchanged_tokens (
    account TEXT NOT NULL,
    jti TEXT NOT NULL,
    workload TEXT NOT NULL,
    generation INTEGER NOT NULL,
    user_ref TEXT NOT NULL,
    issuer TEXT NOT NULL,
    workload_epoch INTEGER NOT NULL,
    user_epoch INTEGER NOT NULL,
    issuer_epoch INTEGER NOT NULL,
    actors TEXT NOT NULL,
    since INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    PRIMARY KEY (account, jti)
) STRICT;
CREATE INDEX exchanged_tokens_expiry ON exchanged_tokens (expires);
