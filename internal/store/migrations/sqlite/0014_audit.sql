-- Who writes the trail. sequence and hash are those of the last checkpoint that moved the writer, at moved. closed
-- numbers the writers that ended, in the order in which checkpoints took them for ended; 0 is who may go on. over says
-- that the writer itself has ended.
CREATE TABLE audit_writers (
    account  TEXT    NOT NULL,
    writer   TEXT    NOT NULL,
    begun    INTEGER NOT NULL,
    moved    INTEGER NOT NULL,
    over     INTEGER NOT NULL,
    closed   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    PRIMARY KEY (account, writer)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_writers_open ON audit_writers (account, writer) WHERE closed = 0;
CREATE INDEX audit_writers_closed ON audit_writers (account, closed) WHERE closed > 0;

-- Records from before there were checkpoints.
INSERT INTO audit_writers (account, writer, begun, moved, over, closed, sequence, hash)
    SELECT min(account), writer, 0, 0, 1, 0, 0, x'' FROM audit GROUP BY writer HAVING min(account) = max(account);

-- hash is that of the token; records and writers are what it covers, for lists.
CREATE TABLE audit_checkpoints (
    account TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    id      TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    records INTEGER NOT NULL,
    writers INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    token   TEXT    NOT NULL,
    PRIMARY KEY (account, number),
    UNIQUE (account, id)
) STRICT;
CREATE INDEX audit_checkpoints_hash ON audit_checkpoints (account, hash);

-- Work that one replica does at a time.
CREATE TABLE audit_leases (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far a sink has been given an account's records.
CREATE TABLE audit_cursors (
    account    TEXT    NOT NULL,
    sink       TEXT    NOT NULL,
    position   TEXT    NOT NULL,
    checkpoint INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    PRIMARY KEY (account, sink)
) STRICT, WITHOUT ROWID;



CREATE INDEX audit_denied ON audit (account, tx, seq) WHERE allow = 0;
