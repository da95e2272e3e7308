-- Users' tokens that are kept for an exchange on their behalf, or for the UserInfo endpoint of their issuer. What is
-- sealed opens with the vault and with a share that only the workload access token has.
CREATE TABLE user_assertions (
    account TEXT COLLATE "C" NOT NULL,
    handle TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (account, handle)
);
CREATE INDEX user_assertions_expires ON user_assertions (expires);

-- How a provider exchanges users' tokens: JSON, '' where it does not.
ALTER TABLE providers ADD COLUMN obo TEXT COLLATE "C" NOT NULL DEFAULT '';
