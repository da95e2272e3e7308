-- One refresh token for several resources (ADR 22): connections of one consent live on it, and have none of their own. A
-- connection and a consent are for one resource, which their scopes name. claims is what the provider asked of the user.
ALTER TABLE connections ADD COLUMN resource TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN lineage TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN claims BYTEA NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN resource TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX connections_lineage ON connections (account, lineage) WHERE lineage <> '';

CREATE TABLE lineages (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    family TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    refresh BYTEA NOT NULL,
    upstream BYTEA NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    identity TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
);
CREATE INDEX lineages_family ON lineages (account, family);
CREATE INDEX lineages_user ON lineages (account, user_ref);
CREATE INDEX lineages_provider ON lineages (account, provider);

ALTER TABLE lineages ENABLE ROW LEVEL SECURITY;
ALTER TABLE lineages FORCE ROW LEVEL SECURITY;
CREATE POLICY of_account ON lineages USING (account = current_setting('tabard.account', true)
    OR current_setting('tabard.account', true) = '*');
