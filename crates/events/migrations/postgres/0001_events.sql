-- What happened, written in the transaction of what it tells, until it is published and for some time after.
CREATE TABLE outbox (
    event_id UUID NOT NULL PRIMARY KEY,
    aggregate TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    time TIMESTAMPTZ NOT NULL,
    traceparent TEXT,
    data BYTEA NOT NULL,
    published_at TIMESTAMPTZ
);

-- Which aggregates wait longest.
CREATE INDEX outbox_unpublished ON outbox (time, event_id) WHERE published_at IS NULL;

-- What an aggregate has to tell next.
CREATE INDEX outbox_unpublished_of_aggregate ON outbox (aggregate, version, event_id) WHERE published_at IS NULL;

-- For the sweep of old ones, and for a refill.
CREATE INDEX outbox_published ON outbox (published_at, aggregate, version) WHERE published_at IS NOT NULL;

-- What a consumer has seen, written in the transaction of its effect.
CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id UUID NOT NULL,
    handled_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (consumer, event_id)
);

-- For the sweep of old ones.
CREATE INDEX inbox_age ON inbox (consumer, handled_at);

-- What a consumer has given up on, for an operator.
CREATE TABLE dead_letters (
    consumer TEXT COLLATE "C" NOT NULL,
    event_id UUID NOT NULL,
    aggregate TEXT NOT NULL,
    version BIGINT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    time TIMESTAMPTZ NOT NULL,
    traceparent TEXT,
    data BYTEA NOT NULL,
    error TEXT NOT NULL,
    tries BIGINT NOT NULL,
    parked_at TIMESTAMPTZ NOT NULL,
    replayed_at TIMESTAMPTZ,
    PRIMARY KEY (consumer, event_id)
);

-- For the list of those that still wait.
CREATE INDEX dead_letters_waiting ON dead_letters (parked_at, event_id, consumer) WHERE replayed_at IS NULL;
