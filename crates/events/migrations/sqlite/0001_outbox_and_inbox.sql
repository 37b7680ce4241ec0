-- Events on their way out: written in the transaction of the change that they tell of, kept for a while after they were published.
CREATE TABLE outbox (
    id BLOB NOT NULL PRIMARY KEY,
    aggregate TEXT NOT NULL,
    version BIGINT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    traceparent TEXT,
    data BLOB NOT NULL,
    published_at TEXT,
    UNIQUE (aggregate, version)
);

-- What the relay asks for.
CREATE INDEX outbox_unpublished ON outbox (aggregate, version) WHERE published_at IS NULL;

-- For the sweep of old ones.
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- Events that a consumer has seen: written in the transaction of their effect.
CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id BLOB NOT NULL,
    seen_at TEXT NOT NULL,
    PRIMARY KEY (consumer, event_id)
);

-- For the sweep of old ones.
CREATE INDEX inbox_age ON inbox (seen_at);

-- Events that a consumer could not handle, for an operator to look at and replay.
CREATE TABLE dead_letters (
    consumer TEXT NOT NULL,
    event_id BLOB NOT NULL,
    aggregate TEXT NOT NULL,
    version BIGINT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    traceparent TEXT,
    data BLOB NOT NULL,
    error TEXT NOT NULL,
    tries BIGINT NOT NULL,
    parked_at TEXT NOT NULL,
    replayed_at TEXT,
    PRIMARY KEY (consumer, event_id)
);
