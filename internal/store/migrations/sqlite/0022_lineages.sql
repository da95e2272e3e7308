-- One refresh token for several resources (ADR 22): connections of one consent live on it, and have none of their own. A
-- connection and a consent are for one resource, which their scopes name. claims is what the provider asked of the user.
ALTER TABLE connections ADD COLUMN resource TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN lineage TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN claims BLOB NOT NULL DEFAULT x'';
ALTER TABLE flows ADD COLUMN resource TEXT NOT NULL DEFAULT '';
CREATE INDEX connections_lineage ON connections (account, lineage) WHERE lineage <> '';

CREATE TABLE lineages (
    account TEXT NOT NULL,
    id TEXT NOT NULL,
    family TEXT NOT NULL,
    workload TEXT NOT NULL,
    user_ref TEXT NOT NULL,
    provider TEXT NOT NULL,
    refresh BLOB NOT NULL,
    upstream BLOB NOT NULL,
    reason TEXT NOT NULL,
    generation INTEGER NOT NULL,
    identity TEXT NOT NULL,
    fence INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, provider) REFERENCES providers (account, uid) ON DELETE CASCADE
) STRICT;
CREATE INDEX lineages_family ON lineages (account, family);
CREATE INDEX lineages_user ON lineages (account, user_ref);
CREATE INDEX lineages_provider ON lineages (account, provider);
