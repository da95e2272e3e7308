-- Where an issuer's metadata led when an administrator set its login client. Empty leads nowhere.
ALTER TABLE issuer_logins ADD COLUMN authorization_endpoint TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE issuer_logins ADD COLUMN token_endpoint TEXT COLLATE "C" NOT NULL DEFAULT '';
-- Two issuers of an account do not share a client at the same endpoints: their answers would be told apart by nothing else.
CREATE UNIQUE INDEX issuer_logins_authorization ON issuer_logins (account, client_id, authorization_endpoint) WHERE authorization_endpoint <> '';
CREATE UNIQUE INDEX issuer_logins_token ON issuer_logins (account, client_id, token_endpoint) WHERE token_endpoint <> '';

-- The origins of other endpoints that an issuer's metadata names, as they were when it was first believed.
CREATE TABLE issuer_pins (
    account TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account, issuer, endpoint)
);
ALTER TABLE issuer_pins ENABLE ROW LEVEL SECURITY;
ALTER TABLE issuer_pins FORCE ROW LEVEL SECURITY;
CREATE POLICY of_account ON issuer_pins USING (account = current_setting('tabard.account', true)
    OR current_setting('tabard.account', true) = '*');
