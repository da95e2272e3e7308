-- The account at the provider whose tokens the connection held when the session began, sealed; empty where there was no
-- connection.
ALTER TABLE flows ADD COLUMN upstream BLOB NOT NULL DEFAULT x'';

-- 1 where the issuer tells of logouts (OpenID Connect Back-Channel Logout 1.0).
ALTER TABLE issuers ADD COLUMN backchannel_logout INTEGER NOT NULL DEFAULT 0;

-- Logouts that issuers told of, until whatever they end has ended by itself. key stands for a session of an issuer, or for
-- the user. What was made under a lower epoch is dead; a user's token of the second, or from before, is refused.
CREATE TABLE logouts (
    account TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    epoch   INTEGER NOT NULL,
    issued  INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT;
CREATE INDEX logouts_expiry ON logouts (expires);

-- Logout tokens that were taken, until they end: each is taken once.
CREATE TABLE logout_tokens (
    account TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT;
CREATE INDEX logout_tokens_expiry ON logout_tokens (expires);

-- The session that a token for others rests on, and its epoch then; '' for none.
ALTER TABLE exchanged_tokens ADD COLUMN session TEXT NOT NULL DEFAULT '';
ALTER TABLE exchanged_tokens ADD COLUMN session_epoch INTEGER NOT NULL DEFAULT 0;
