CREATE TABLE api_key_providers (
    account   TEXT    NOT NULL,
    uid       TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    api_key   BLOB    NOT NULL,
    secret_id TEXT    NOT NULL,
    tags      TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    PRIMARY KEY (account, uid),
    UNIQUE (account, name)
) STRICT;

-- Tags of token vaults. A row comes with the first tag.
CREATE TABLE vault_tags (
    account TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    tags    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

-- Restoring looks for the newest deleted workload identity of a name.
CREATE INDEX workloads_deleted ON workloads (account, name, deleted) WHERE deleted > 0;
