-- Accounts that this server serves. Whether one is disabled is in standings, as kind account. Quotas of 0 are those of
-- the server's settings.
CREATE TABLE accounts (
    account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    workloads BIGINT NOT NULL,
    providers BIGINT NOT NULL,
    principals BIGINT NOT NULL,
    policies BIGINT NOT NULL,
    connections BIGINT NOT NULL,
    requests BIGINT NOT NULL, -- per second
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- Accounts from before there were rows of them: that of the settings, and those that it was before.
INSERT INTO accounts (account, name, workloads, providers, principals, policies, connections, requests, version, created, updated)
    SELECT account, account, 0, 0, 0, 0, 0, 0, 1, min(created), min(created) FROM principals GROUP BY account;

-- When an access key was last used, to about a minute; 0 for never.
ALTER TABLE access_keys ADD COLUMN last_used BIGINT NOT NULL DEFAULT 0;
