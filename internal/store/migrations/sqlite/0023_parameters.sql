-- Custom parameters name the token (ADR 20): parameters is a MAC of them under the server's key, parameter_names tells people
-- why there are two connections.
ALTER TABLE connections ADD COLUMN parameters TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN parameter_names TEXT NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN parameters TEXT NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN parameter_names TEXT NOT NULL DEFAULT '';
