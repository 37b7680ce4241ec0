CREATE TABLE users (
    user_id BLOB NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    password_hash TEXT NOT NULL, -- Argon2id, PHC form
    version BIGINT NOT NULL CHECK (version > 0),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    -- Under which key the user registered: kept for ever, so that a late repeat is recognised. The fingerprint knows nothing of the password.
    request_id BLOB NOT NULL,
    fingerprint BLOB NOT NULL
);

CREATE TABLE user_roles (
    role TEXT NOT NULL CHECK (role IN ('CUSTOMER', 'STAFF', 'ADMIN')),
    user_id BLOB NOT NULL REFERENCES users (user_id),
    PRIMARY KEY (role, user_id)
);

CREATE INDEX user_roles_by_user ON user_roles (user_id);

-- What happened, by whom: append-only, in the transaction of what it records. No secret stands here.
CREATE TABLE audit_events (
    audit_id BLOB NOT NULL PRIMARY KEY,
    happened_at TEXT NOT NULL,
    actor TEXT NOT NULL, -- the subject of the caller's token, or 'anonymous', or 'system'
    action TEXT NOT NULL,
    subject TEXT NOT NULL, -- what it was done to: user/<id>, session/<id>, key/<kid>
    peer TEXT, -- where the call came from
    detail TEXT NOT NULL
);

CREATE INDEX audit_events_by_subject ON audit_events (subject, happened_at);
