CREATE TABLE api_key_providers (
    account TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    api_key BYTEA NOT NULL,
    secret_id TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, uid),
    UNIQUE (account, name)
);

-- Tags of token vaults. A row comes with the first tag.
CREATE TABLE vault_tags (
    account TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (account, name)
);

-- Restoring looks for the newest deleted workload identity of a name.
CREATE INDEX workloads_deleted ON workloads (account, name, deleted) WHERE deleted > 0;
