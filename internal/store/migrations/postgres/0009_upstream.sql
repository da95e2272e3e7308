-- The account at the provider that the tokens are of, sealed as they are. Empty where it is not known.
ALTER TABLE connections ADD COLUMN upstream BYTEA NOT NULL DEFAULT '';

-- Whether the request asked for a new consent whatever is stored: then another account may replace the former.
ALTER TABLE flows ADD COLUMN force BIGINT NOT NULL DEFAULT 0;
