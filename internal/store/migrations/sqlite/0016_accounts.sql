-- Accounts that this server serves. Whether one is disabled is in standings, as kind account. Quotas of 0 are those of
-- the server's settings.
CREATE TABLE accounts (
    account TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    workloads INTEGER NOT NULL,
    providers INTEGER NOT NULL,
    principals INTEGER NOT NULL,
    policies INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    requests INTEGER NOT NULL, -- per second
    version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

-- Accounts from before there were rows of them: that of the settings, and those that it was before.
INSERT INTO accounts (account, name, workloads, providers, principals, policies, connections, requests, version, created, updated)
    SELECT account, account, 0, 0, 0, 0, 0, 0, 1, min(created), min(created) FROM principals GROUP BY account;

-- When an access key was last used, to about a minute; 0 for never.
ALTER TABLE access_keys ADD COLUMN last_used INTEGER NOT NULL DEFAULT 0;
