-- The version of each account's last write of a policy. A transaction that writes policies takes the row first, so
-- versions become visible in their order.
CREATE TABLE policy_versions (
    account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);

-- The policies as they are. A deletion leaves its row, with the deletion's version.
CREATE TABLE policies (
    account TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    text TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, name)
);
CREATE INDEX policies_version ON policies (account, version);

-- Each write of a policy, so that a recorded decision can be made again with the policies of its time.
CREATE TABLE policy_history (
    account TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    text TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    deleted BIGINT NOT NULL,
    written_by TEXT COLLATE "C" NOT NULL,
    written BIGINT NOT NULL,
    PRIMARY KEY (account, version)
);
CREATE INDEX policy_history_name ON policy_history (account, name, version);

-- The accounts whose agents had the rights of the rule table when this database was upgraded. Their rights are written as
-- policies once; accounts that come later have no row.
CREATE TABLE policy_upgrades (
    account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    done BIGINT NOT NULL
);
INSERT INTO policy_upgrades (account, done) SELECT DISTINCT account, 0 FROM principals;
