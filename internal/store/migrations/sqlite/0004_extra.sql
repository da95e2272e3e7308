-- What a vendor answers beside the token, sealed as the tokens are. Empty where there is nothing.
ALTER TABLE connections ADD COLUMN extra BLOB NOT NULL DEFAULT x'';
