CREATE TABLE products (
    sku TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    currency_code TEXT NOT NULL,
    price_minor BIGINT NOT NULL CHECK (price_minor >= 0),
    tax_basis_points BIGINT NOT NULL CHECK (tax_basis_points BETWEEN 0 AND 10000),
    attributes TEXT NOT NULL, -- a JSON object of texts
    version BIGINT NOT NULL CHECK (version > 0),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    -- By whom and under which key it was created: kept for ever, so that a late repeat is recognised.
    caller TEXT NOT NULL,
    request_id BLOB NOT NULL,
    fingerprint BLOB NOT NULL
);

CREATE TABLE locations (
    name TEXT NOT NULL PRIMARY KEY
);

INSERT INTO locations (name) VALUES ('main');
