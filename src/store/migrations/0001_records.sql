-- one row per record; a deleted record stays for a while with an empty body, for those who follow
CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    body TEXT,
    mac BLOB NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX records_by_revision ON records (revision);

-- values that at most one record may hold
CREATE TABLE claims (
    space TEXT NOT NULL,
    value TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (space, value)
);
CREATE INDEX claims_by_record ON claims (kind, id);

-- counts every committed change
CREATE TABLE revision (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    value BIGINT NOT NULL
);
INSERT INTO revision (one, value) VALUES (1, 0);

-- work that one process does at a time
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until BIGINT NOT NULL
);

-- the wrapped keys
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
