-- The installation's own signing keys, one for each purpose and period of 30 days. The private half is sealed; what is
-- published is derived from it, so that the clear half is for people only.
CREATE TABLE signing_keys (
    purpose TEXT COLLATE "C" NOT NULL,
    period BIGINT NOT NULL,
    kid TEXT COLLATE "C" NOT NULL UNIQUE,
    public TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (purpose, period)
);
