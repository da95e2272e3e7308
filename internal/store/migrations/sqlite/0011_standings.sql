-- Who is disabled or frozen, and the epochs below which workload access tokens are dead. What has no row stands, in
-- epoch 0. kind is workload (key: uid), user (user reference), issuer (URL) or provider (uid).
CREATE TABLE standings (
    account  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    disabled INTEGER NOT NULL,
    frozen   INTEGER NOT NULL,
    reason   TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    PRIMARY KEY (account, kind, key)
) STRICT;

-- Names of claims of the users' tokens that policies may ask for, a JSON list; '' for none.
ALTER TABLE issuers ADD COLUMN policy_claims TEXT NOT NULL DEFAULT '';
