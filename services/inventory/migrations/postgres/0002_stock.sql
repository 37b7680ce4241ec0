-- available = on_hand - safety - held - allocated. A record is made by its first movement.
CREATE TABLE stock (
    sku TEXT COLLATE "C" NOT NULL REFERENCES products (sku),
    location TEXT COLLATE "C" NOT NULL REFERENCES locations (name),
    on_hand BIGINT NOT NULL CHECK (on_hand >= 0),
    held BIGINT NOT NULL CHECK (held >= 0),
    allocated BIGINT NOT NULL CHECK (allocated >= 0),
    safety BIGINT NOT NULL CHECK (safety >= 0),
    incoming BIGINT NOT NULL CHECK (incoming >= 0),
    version BIGINT NOT NULL, -- the seq of the last movement
    on_hand_version BIGINT NOT NULL, -- the seq of the last movement that changed on_hand
    updated_at TIMESTAMPTZ, -- of the last movement
    PRIMARY KEY (sku, location)
);

CREATE TABLE reservations (
    id UUID NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('HELD', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    version BIGINT NOT NULL,
    -- By whom and under which key it was made: kept for ever, so that a late repeat is recognised.
    caller TEXT NOT NULL,
    request_id UUID NOT NULL,
    fingerprint BYTEA NOT NULL
);

-- The sweeper's question: which holds are due?
CREATE INDEX reservations_due ON reservations (expires_at) WHERE state = 'HELD';

-- requested = held + committed + released + expired.
-- No foreign keys: a line is written in the transaction of its reservation, on the hottest path there is; the invariants check it.
CREATE TABLE reservation_lines (
    reservation_id UUID NOT NULL,
    sku TEXT COLLATE "C" NOT NULL,
    location TEXT COLLATE "C" NOT NULL,
    requested BIGINT NOT NULL CHECK (requested > 0),
    held BIGINT NOT NULL CHECK (held >= 0),
    committed BIGINT NOT NULL CHECK (committed >= 0),
    released BIGINT NOT NULL CHECK (released >= 0),
    expired BIGINT NOT NULL CHECK (expired >= 0),
    expires_at TIMESTAMPTZ NOT NULL, -- of the reservation, for the index below
    PRIMARY KEY (reservation_id, sku, location)
);

-- The question of a Reserve that is short: which due holds have units of this record? However many live ones there are.
CREATE INDEX reservation_lines_due ON reservation_lines (sku, location, expires_at) WHERE held > 0;

-- The ledger: rows are only ever added.
CREATE TABLE movements (
    sku TEXT COLLATE "C" NOT NULL,
    location TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    operation TEXT NOT NULL,
    on_hand_delta BIGINT NOT NULL,
    held_delta BIGINT NOT NULL,
    allocated_delta BIGINT NOT NULL,
    safety_delta BIGINT NOT NULL,
    incoming_delta BIGINT NOT NULL,
    reason TEXT,
    reference TEXT NOT NULL,
    actor TEXT NOT NULL,
    request_id UUID, -- none for what the service does by itself
    reservation_id UUID,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (sku, location, seq)
);
