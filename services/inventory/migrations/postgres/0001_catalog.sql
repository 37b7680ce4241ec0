-- Names are compared by their bytes (COLLATE "C"), as the service itself and SQLite do.
CREATE TABLE products (
    sku TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    currency_code TEXT NOT NULL,
    price_minor BIGINT NOT NULL CHECK (price_minor >= 0),
    tax_basis_points BIGINT NOT NULL CHECK (tax_basis_points BETWEEN 0 AND 10000),
    attributes TEXT NOT NULL, -- a JSON object of texts
    version BIGINT NOT NULL CHECK (version > 0),
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    -- By whom and under which key it was created: kept for ever, so that a late repeat is recognised.
    caller TEXT NOT NULL,
    request_id UUID NOT NULL,
    fingerprint BYTEA NOT NULL
);

CREATE TABLE locations (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY
);

INSERT INTO locations (name) VALUES ('main');
