"""The versions of the record's schema, and the way from each to the next."""

# "FOVE": tells our file from another program's database of the same name.
APPLICATION_ID = 0x464F5645
# MIGRATIONS[n] brings schema version n to n + 1; the version is the database's user_version. Never
# edit one that was released: add the next.
MIGRATIONS = (
    """
    CREATE TABLE collections (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        dimension INTEGER NOT NULL CHECK (dimension > 0),
        metric TEXT NOT NULL,
        fingerprint TEXT NOT NULL
    );
    -- A write of an item takes the next sequence number, which is never given out twice; so the order of
    -- sequence is the order of writing, and what is new since a given number can be read off.
    CREATE TABLE items (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        collection INTEGER NOT NULL REFERENCES collections (key) ON DELETE CASCADE,
        id TEXT NOT NULL,
        vector BLOB NOT NULL,     -- float32, little-endian
        attributes TEXT NOT NULL, -- a JSON object
        UNIQUE (collection, id)
    );
    -- Ends in the row id, that is in the sequence: a collection is read in order without sorting.
    CREATE INDEX items_of_collection ON items (collection);
    """,
    """
    -- Of the vectors of its items, little-endian: float32 or float16.
    ALTER TABLE collections ADD COLUMN storage TEXT NOT NULL DEFAULT 'float32';
    -- Those declared: a JSON object, name to type.
    ALTER TABLE collections ADD COLUMN attributes TEXT NOT NULL DEFAULT '{}';
    -- 1: it is gone, and so is its name; its items go some at a time.
    ALTER TABLE collections ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
    """,
)
SCHEMA_VERSION = len(MIGRATIONS)
