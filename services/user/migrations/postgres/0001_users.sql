CREATE TABLE users (
    user_id UUID NOT NULL PRIMARY KEY,
    email TEXT COLLATE "C" NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    password_hash TEXT NOT NULL, -- Argon2id, PHC form
    version BIGINT NOT NULL CHECK (version > 0),
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    -- Under which key the user registered: kept for ever, so that a late repeat is recognised. The fingerprint knows nothing of the password.
    request_id UUID NOT NULL,
    fingerprint BYTEA NOT NULL
);

CREATE TABLE user_roles (
    role TEXT NOT NULL CHECK (role IN ('CUSTOMER', 'STAFF', 'ADMIN')),
    user_id UUID NOT NULL REFERENCES users (user_id),
    PRIMARY KEY (role, user_id)
);

CREATE INDEX user_roles_by_user ON user_roles (user_id);

-- What happened, by whom: append-only, in the transaction of what it records. No secret stands here.
CREATE TABLE audit_events (
    audit_id UUID NOT NULL PRIMARY KEY,
    happened_at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL, -- the subject of the caller's token, or 'anonymous', or 'system'
    action TEXT NOT NULL,
    subject TEXT NOT NULL, -- what it was done to: user/<id>, session/<id>, key/<kid>
    peer TEXT, -- where the call came from
    detail TEXT NOT NULL
);

CREATE INDEX audit_events_by_subject ON audit_events (subject, happened_at);
