-- The keys that sign access tokens. The seed is the private half: whoever reads this table can sign.
CREATE TABLE token_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    seed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PUBLISHED', 'SIGNING', 'RETIRED')),
    since TEXT NOT NULL
);

-- One key signs, one is about to.
CREATE UNIQUE INDEX token_keys_in_turn ON token_keys (state) WHERE state <> 'RETIRED';
