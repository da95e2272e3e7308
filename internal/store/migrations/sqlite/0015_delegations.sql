-- What a user allows an agent while the user is away. grants is JSON: provider names and uids with scopes. The note is
-- sealed. The epochs are the user's and the issuer's when it was made: once one has risen it is over.
CREATE TABLE delegations (
    account      TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    workload     TEXT    NOT NULL,
    user_ref     TEXT    NOT NULL,
    issuer       TEXT    NOT NULL,
    grants       TEXT    NOT NULL,
    note         BLOB    NOT NULL,
    until        INTEGER NOT NULL,
    user_epoch   INTEGER NOT NULL,
    issuer_epoch INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    ended        INTEGER NOT NULL,
    last_used    INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT;
CREATE INDEX delegations_by_workload ON delegations (account, workload, id);
CREATE INDEX delegations_by_user ON delegations (account, user_ref, id);

-- Bounds of a workload identity; 0 is none. Without a row the server's defaults hold. Those that exist already go on
-- without any.
CREATE TABLE ceilings (
    account             TEXT    NOT NULL,
    workload            TEXT    NOT NULL,
    releases_per_minute INTEGER NOT NULL,
    users_per_hour      INTEGER NOT NULL,
    freezes             INTEGER NOT NULL,
    changed             INTEGER NOT NULL,
    PRIMARY KEY (account, workload)
) STRICT;
INSERT INTO ceilings (account, workload, releases_per_minute, users_per_hour, freezes, changed)
    SELECT account, uid, 0, 0, 0, 0 FROM workloads;

-- What was counted: releases handed out to the servers in the minute, and how many rows of ceiling_users there are. Its
-- row is the lock under which they change.
CREATE TABLE ceiling_counts (
    account  TEXT    NOT NULL,
    workload TEXT    NOT NULL,
    minute   INTEGER NOT NULL,
    taken    INTEGER NOT NULL,
    users    INTEGER NOT NULL,
    PRIMARY KEY (account, workload)
) STRICT;
CREATE TABLE ceiling_users (
    account  TEXT    NOT NULL,
    workload TEXT    NOT NULL,
    user_ref TEXT    NOT NULL,
    seen     INTEGER NOT NULL,
    PRIMARY KEY (account, workload, user_ref)
) STRICT;
CREATE INDEX ceiling_users_by_age ON ceiling_users (account, workload, seen);
