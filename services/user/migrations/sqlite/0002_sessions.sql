CREATE TABLE sessions (
    session_id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (user_id),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    revoked_at TEXT
);

CREATE INDEX sessions_by_user ON sessions (user_id);
-- The sweeper's question: which are over?
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Each token that a session ever had, by its SHA-256: a second use of any of them must be noticed.
CREATE TABLE refresh_tokens (
    token_hash BLOB NOT NULL PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    expires_at TEXT NOT NULL,
    used_at TEXT,
    successor_hash BLOB,
    CHECK ((used_at IS NULL) = (successor_hash IS NULL))
);

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
