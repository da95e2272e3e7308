-- The installation's own signing keys, one for each purpose and period of 30 days. The private half is sealed; what is
-- published is derived from it, so that the clear half is for people only.
CREATE TABLE signing_keys (
    purpose TEXT NOT NULL,
    period INTEGER NOT NULL,
    kid TEXT NOT NULL UNIQUE,
    public TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (purpose, period)
) STRICT;
