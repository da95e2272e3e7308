-- Whose tokens name workloads.
CREATE TABLE workload_issuers (
    account         TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    uid             TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    audiences       TEXT    NOT NULL,
    jwks_uri        TEXT    NOT NULL,
    jwks            BLOB    NOT NULL,
    other_audiences INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    PRIMARY KEY (account, url)
) STRICT;

-- Which of their tokens lead to which principal.
CREATE TABLE federation_rules (
    account   TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    issuer    TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    claims    TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, issuer) REFERENCES workload_issuers (account, url) ON DELETE CASCADE,
    FOREIGN KEY (account, principal) REFERENCES principals (account, id)
) STRICT;
CREATE INDEX federation_rules_issuer ON federation_rules (account, issuer, id);
CREATE INDEX federation_rules_principal ON federation_rules (account, principal, id);
