-- Revocations of many connections at once, and what became of each connection. A job is what survives the server that
-- began it: phase says how far it came, and every step may be taken again.
CREATE TABLE revocation_jobs (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    workload TEXT COLLATE "C" NOT NULL, -- name
    user_ref TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL, -- name
    whole_account BIGINT NOT NULL,
    upstream BIGINT NOT NULL,
    erase BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    principal_name TEXT COLLATE "C" NOT NULL,
    access_key TEXT COLLATE "C" NOT NULL,
    phase TEXT COLLATE "C" NOT NULL,
    delegations BIGINT NOT NULL,
    receipt TEXT COLLATE "C" NOT NULL,
    due BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    finished BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX revocation_jobs_due ON revocation_jobs (due) WHERE phase <> 'done';

CREATE TABLE revocation_items (
    account TEXT COLLATE "C" NOT NULL,
    job TEXT COLLATE "C" NOT NULL,
    connection TEXT COLLATE "C" NOT NULL, -- id; the connection may be gone
    workload_name TEXT COLLATE "C" NOT NULL,
    user_ref TEXT COLLATE "C" NOT NULL,
    provider_name TEXT COLLATE "C" NOT NULL,
    ended BIGINT NOT NULL,
    generation BIGINT NOT NULL, -- of the tokens that are revoked at the provider
    upstream TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account, job, connection),
    FOREIGN KEY (account, job) REFERENCES revocation_jobs (account, id) ON DELETE CASCADE
);
