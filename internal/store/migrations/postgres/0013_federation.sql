-- Whose tokens name workloads.
CREATE TABLE workload_issuers (
    account TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    audiences TEXT COLLATE "C" NOT NULL,
    jwks_uri TEXT COLLATE "C" NOT NULL,
    jwks BYTEA NOT NULL,
    other_audiences BIGINT NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, url)
);

-- Which of their tokens lead to which principal.
CREATE TABLE federation_rules (
    account TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    claims TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, issuer) REFERENCES workload_issuers (account, url) ON DELETE CASCADE,
    FOREIGN KEY (account, principal) REFERENCES principals (account, id)
);
CREATE INDEX federation_rules_issuer ON federation_rules (account, issuer, id);
CREATE INDEX federation_rules_principal ON federation_rules (account, principal, id);
