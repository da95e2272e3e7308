-- Who is disabled or frozen, and the epochs below which workload access tokens are dead. What has no row stands, in
-- epoch 0. kind is workload (key: uid), user (user reference), issuer (URL) or provider (uid).
CREATE TABLE standings (
    account TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    disabled BIGINT NOT NULL,
    frozen BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (account, kind, key)
);

-- Names of claims of the users' tokens that policies may ask for, a JSON list; '' for none.
ALTER TABLE issuers ADD COLUMN policy_claims TEXT COLLATE "C" NOT NULL DEFAULT '';
