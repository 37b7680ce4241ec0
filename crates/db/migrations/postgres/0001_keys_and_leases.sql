-- The answers of mutations, kept in the transaction of their effect.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id UUID NOT NULL,
    fingerprint BYTEA NOT NULL,
    response BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (caller, method, request_id)
);

-- For the sweep of old ones.
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Who does which piece of background work, and until when.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder UUID NOT NULL,
    epoch BIGINT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
