-- Connections may share one grant at the provider (ADR 30): grant_ref is a MAC of it, '' if the account there is not known.
ALTER TABLE connections ADD COLUMN grant_ref TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE revocations ADD COLUMN grant_ref TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX connections_grant ON connections (account, grant_ref) WHERE grant_ref <> '';
