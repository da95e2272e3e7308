-- Signing keys can be replaced within their period and revoked: a revoked key has no private half any more. begins is when a
-- key signs first.
ALTER TABLE signing_keys ADD COLUMN serial BIGINT NOT NULL DEFAULT 0, ADD COLUMN begins BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN revoked BIGINT NOT NULL DEFAULT 0;
UPDATE signing_keys SET begins = period * 2592000000;
ALTER TABLE signing_keys DROP CONSTRAINT signing_keys_pkey, ADD PRIMARY KEY (purpose, period, serial);

-- The tokens for others that were exchanged for workload access tokens, until they end: what they rest on, so that they can
-- be told for dead, never who the user is.
CREATE TABLE exchanged_tokens (
    account TEXT COLLATE "C" NOT NULL,
    jti TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    workload_epoch BIGINT NOT NULL,
    user_epoch BIGINT NOT NULL,
    issuer_epoch BIGINT NOT NULL,
    actors TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL,
    PRIMARY KEY (account, jti)
);
CREATE INDEX exchanged_tokens_expiry ON exchanged_tokens (expires);
