-- The version of each account's last write of a policy. A transaction that writes policies takes the row first, so
-- versions become visible in their order.
CREATE TABLE policy_versions (
    account TEXT    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;

-- The policies as they are. A deletion leaves its row, with the deletion's version.
CREATE TABLE policies (
    account     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    text        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    deleted     INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT;
CREATE INDEX policies_version ON policies (account, version);

-- Each write of a policy, so that a recorded decision can be made again with the policies of its time.
CREATE TABLE policy_history (
    account    TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    text       TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    deleted    INTEGER NOT NULL,
    written_by TEXT    NOT NULL,
    written    INTEGER NOT NULL,
    PRIMARY KEY (account, version)
) STRICT;
CREATE INDEX policy_history_name ON policy_history (account, name, version);

-- The accounts whose agents had the rights of the rule table when this database was upgraded. Their rights are written as
-- policies once; accounts that come later have no row.
CREATE TABLE policy_upgrades (
    account TEXT    NOT NULL PRIMARY KEY,
    done    INTEGER NOT NULL
) STRICT;
INSERT INTO policy_upgrades (account, done) SELECT DISTINCT account, 0 FROM principals;
