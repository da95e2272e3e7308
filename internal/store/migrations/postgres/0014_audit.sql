-- Who writes the trail. sequence and hash are those of the last checkpoint that moved the writer, at moved. closed
-- numbers the writers that ended, in the order in which checkpoints took them for ended; 0 is who may go on. over says
-- that the writer itself has ended.
CREATE TABLE audit_writers (
    account TEXT COLLATE "C" NOT NULL,
    writer TEXT COLLATE "C" NOT NULL,
    begun BIGINT NOT NULL,
    moved BIGINT NOT NULL,
    over BIGINT NOT NULL,
    closed BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (account, writer)
);
CREATE INDEX audit_writers_open ON audit_writers (account, writer) WHERE closed = 0;
CREATE INDEX audit_writers_closed ON audit_writers (account, closed) WHERE closed > 0;

-- Records from before there were checkpoints.
INSERT INTO audit_writers (account, writer, begun, moved, over, closed, sequence, hash)
    SELECT min(account), writer, 0, 0, 1, 0, 0, CAST('' AS BYTEA) FROM audit GROUP BY writer HAVING min(account) = max(account);

-- hash is that of the token; records and writers are what it covers, for lists.
CREATE TABLE audit_checkpoints (
    account TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    time BIGINT NOT NULL,
    records BIGINT NOT NULL,
    writers BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    token TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account, number),
    UNIQUE (account, id)
);
CREATE INDEX audit_checkpoints_hash ON audit_checkpoints (account, hash);

-- Work that one replica does at a time.
CREATE TABLE audit_leases (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);

-- How far a sink has been given an account's records.
CREATE TABLE audit_cursors (
    account TEXT COLLATE "C" NOT NULL,
    sink TEXT COLLATE "C" NOT NULL,
    position TEXT COLLATE "C" NOT NULL,
    checkpoint BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (account, sink)
);



CREATE INDEX audit_denied ON audit (account, tx, seq) WHERE allow = 0;
