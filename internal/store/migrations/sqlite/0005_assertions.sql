-- Users' tokens that are kept for an exchange on their behalf, or for the UserInfo endpoint of their issuer. What is
-- sealed opens with the vault and with a share that only the workload access token has.
CREATE TABLE user_assertions (
    account  TEXT    NOT NULL,
    handle   TEXT    NOT NULL,
    workload TEXT    NOT NULL,
    user_ref TEXT    NOT NULL,
    issuer   TEXT    NOT NULL,
    expires  INTEGER NOT NULL,
    sealed   BLOB    NOT NULL,
    PRIMARY KEY (account, handle)
) STRICT;
CREATE INDEX user_assertions_expires ON user_assertions (expires);

-- How a provider exchanges users' tokens: JSON, '' where it does not.
ALTER TABLE providers ADD COLUMN obo TEXT NOT NULL DEFAULT '';
