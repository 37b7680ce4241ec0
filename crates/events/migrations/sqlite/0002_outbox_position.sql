-- Where the events of this outbox are published, and the last one that was acknowledged there. Whether the bus still has it tells whether
-- it has lost any; a bus that has is refilled from the outbox.
CREATE TABLE outbox_position (
    relay TEXT NOT NULL PRIMARY KEY,
    stream TEXT NOT NULL, -- empty: everything is to be published again
    stream_created_us BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    event_id BLOB, -- none yet
    republish_from TEXT -- what is to be published again: what was published from then on, or all
);
