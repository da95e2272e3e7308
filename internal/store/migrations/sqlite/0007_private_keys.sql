-- The key that authenticates us to a provider by private_key_jwt, sealed, and its public half.
ALTER TABLE providers ADD COLUMN private_key BLOB NOT NULL DEFAULT x'';
ALTER TABLE providers ADD COLUMN public_key TEXT NOT NULL DEFAULT '';
