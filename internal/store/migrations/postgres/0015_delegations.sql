-- What a user allows an agent while the user is away. grants is JSON: provider names and uids with scopes. The note is
-- sealed. The epochs are the user's and the issuer's when it was made: once one has risen it is over.
CREATE TABLE delegations (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    grants TEXT COLLATE "C" NOT NULL,
    note BYTEA NOT NULL,
    until BIGINT NOT NULL,
    user_epoch BIGINT NOT NULL,
    issuer_epoch BIGINT NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX delegations_by_workload ON delegations (account, workload, id);
CREATE INDEX delegations_by_user ON delegations (account, user_ref, id);

-- Bounds of a workload identity; 0 is none. Without a row the server's defaults hold. Those that exist already go on
-- without any.
CREATE TABLE ceilings (
    account TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    releases_per_minute BIGINT NOT NULL,
    users_per_hour BIGINT NOT NULL,
    freezes BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (account, workload)
);
INSERT INTO ceilings (account, workload, releases_per_minute, users_per_hour, freezes, changed)
    SELECT account, uid, 0, 0, 0, 0 FROM workloads;

-- What was counted: releases handed out to the servers in the minute, and how many rows of ceiling_users there are. Its
-- row is the lock under which they change.
CREATE TABLE ceiling_counts (
    account TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    minute BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    users BIGINT NOT NULL,
    PRIMARY KEY (account, workload)
);
CREATE TABLE ceiling_users (
    account TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (account, workload, user_ref)
);
CREATE INDEX ceiling_users_by_age ON ceiling_users (account, workload, seen);
