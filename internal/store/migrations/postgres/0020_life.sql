-- The account at the provider whose tokens the connection held when the session began, sealed; empty where there was no
-- connection.
ALTER TABLE flows ADD COLUMN upstream BYTEA NOT NULL DEFAULT '';

-- 1 where the issuer tells of logouts (OpenID Connect Back-Channel Logout 1.0).
ALTER TABLE issuers ADD COLUMN backchannel_logout BIGINT NOT NULL DEFAULT 0;

-- Logouts that issuers told of, until whatever they end has ended by itself. key stands for a session of an issuer, or for
-- the user. What was made under a lower epoch is dead; a user's token of the second, or from before, is refused.
CREATE TABLE logouts (
    account TEXT COLLATE "C" NOT NULL,
    key     TEXT COLLATE "C" NOT NULL,
    epoch   BIGINT NOT NULL,
    issued  BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (account, key)
);
CREATE INDEX logouts_expiry ON logouts (expires);

-- Logout tokens that were taken, until they end: each is taken once.
CREATE TABLE logout_tokens (
    account TEXT COLLATE "C" NOT NULL,
    key     TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (account, key)
);
CREATE INDEX logout_tokens_expiry ON logout_tokens (expires);

-- The session that a token for others rests on, and its epoch then; '' for none.
ALTER TABLE exchanged_tokens ADD COLUMN session TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE exchanged_tokens ADD COLUMN session_epoch BIGINT NOT NULL DEFAULT 0;

DO $$
DECLARE t name;
BEGIN
    FOREACH t IN ARRAY ARRAY['logouts', 'logout_tokens']::name[]
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY of_account ON %I USING (account = current_setting(''tabard.account'', true)
            OR current_setting(''tabard.account'', true) = ''*'')', t);
    END LOOP;
END $$;
