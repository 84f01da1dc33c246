-- The whole of state.db. Written by control (and `runoff keys … --local`); workers and the shadow process only read.
CREATE TABLE IF NOT EXISTS revisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- global, never used twice
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'loading', 'warming', 'live', 'failed', 'superseded')),
    action TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_unix_us INTEGER NOT NULL,
    changed_unix_us INTEGER NOT NULL,
    document TEXT,                              -- JSON; NULL deletes the endpoint
    resolutions TEXT NOT NULL,                  -- JSON: arm -> CompiledModel; what was asked for, then what was taken
    restores INTEGER,
    replaced INTEGER,
    problems TEXT NOT NULL DEFAULT '[]',        -- JSON
    compiled BLOB                               -- MessagePack of CompiledRoute, from `warming` on; dropped when old
);
CREATE INDEX IF NOT EXISTS revisions_by_endpoint ON revisions (endpoint, number);

CREATE TABLE IF NOT EXISTS routes (
    endpoint TEXT PRIMARY KEY,
    live INTEGER REFERENCES revisions (number), -- NULL: deleted, or not live yet
    previous INTEGER REFERENCES revisions (number)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS following (          -- of endpoints whose arms name aliases
    endpoint TEXT PRIMARY KEY,
    document TEXT NOT NULL                      -- JSON: Followed
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS ramps (              -- of endpoints whose live route has steps
    endpoint TEXT PRIMARY KEY,
    document TEXT NOT NULL                      -- JSON: Ramp
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS alias_moves (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL REFERENCES revisions (number),
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    found TEXT                                  -- the version that it named before it was first written
);

CREATE TABLE IF NOT EXISTS models (
    uri TEXT PRIMARY KEY,                       -- the exact reference that was staged
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    staged_unix_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,                        -- public; part of the key
    name TEXT NOT NULL,
    digest BLOB NOT NULL,                       -- SHA-256 of the key, which itself is kept nowhere
    scopes TEXT NOT NULL,                       -- JSON list
    rate_per_s REAL,
    burst INTEGER,
    created_unix_us INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_unix_us INTEGER,
    revoked_unix_us INTEGER,
    replaces TEXT REFERENCES keys (id),         -- the key that this one takes over from
    last_used_unix_us INTEGER                   -- to the minute
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS key_sets (
    issuer TEXT PRIMARY KEY,                    -- of tokens ([auth.oidc])
    document TEXT NOT NULL,                     -- its public keys, JSON (RFC 7517)
    fetched_unix_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY,               -- 1, 2, 3, … without a gap
    at_unix_us INTEGER NOT NULL,
    author TEXT NOT NULL,
    action TEXT NOT NULL,
    endpoint TEXT,
    revision INTEGER,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,                       -- JSON
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_by_revision ON audit (revision, sequence);
CREATE TRIGGER IF NOT EXISTS audit_is_never_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE (ABORT, 'audit rows are never changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_is_never_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE (ABORT, 'audit rows are never deleted'); END;
