-- The row is also the idempotency key of its PlaceOrder, for ever: (owner_id, request_id) and the fingerprint of what was asked for.
-- The stored answer is version 1 in order_versions.
CREATE TABLE orders (
    order_id UUID NOT NULL PRIMARY KEY,
    owner_id UUID NOT NULL,
    request_id UUID NOT NULL,
    fingerprint BYTEA NOT NULL,
    reservation_id UUID NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'CONFIRMED', 'REJECTED', 'EXPIRED', 'CANCELLED', 'COMPLETED')),
    state_reason TEXT NOT NULL,
    currency TEXT NOT NULL,
    total_minor BIGINT NOT NULL CHECK (total_minor >= 0),
    version BIGINT NOT NULL CHECK (version >= 1),
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (owner_id, request_id)
);

-- Lists are newest first, of one owner or of all.
CREATE INDEX orders_of_owner ON orders (owner_id, created_at, order_id);
CREATE INDEX orders_by_time ON orders (created_at, order_id);

-- No foreign keys: lines and versions are written in the transaction of their order, on the hottest path there is.
CREATE TABLE order_lines (
    order_id UUID NOT NULL,
    line BIGINT NOT NULL,
    sku TEXT NOT NULL,
    name TEXT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    unit_price_minor BIGINT NOT NULL,
    tax_basis_points BIGINT NOT NULL,
    tax_minor BIGINT NOT NULL,
    total_minor BIGINT NOT NULL,
    PRIMARY KEY (order_id, line)
);

-- Every version of every order, as souk.order.v1.Order. Rows are only ever added, each in the transaction of its change.
CREATE TABLE order_versions (
    order_id UUID NOT NULL,
    version BIGINT NOT NULL,
    snapshot BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (order_id, version)
);

-- What orders still owe the inventory. A step that is taken up is due again when the lease runs out; the epoch grows each time it is
-- taken up, and only the latest may say that it is done.
CREATE TABLE saga_steps (
    order_id UUID NOT NULL,
    step TEXT NOT NULL CHECK (step IN ('COMMIT_STOCK', 'RELEASE_STOCK')),
    state TEXT NOT NULL CHECK (state IN ('DUE', 'DONE', 'DROPPED')),
    due_at TIMESTAMPTZ NOT NULL, -- the next try, or the end of the lease of the current one
    deadline_at TIMESTAMPTZ NOT NULL, -- past it the step is told of, and still tried
    holder UUID, -- the worker that has it, or had it last
    epoch BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (order_id, step)
);

CREATE INDEX saga_steps_due ON saga_steps (due_at) WHERE state = 'DUE';
