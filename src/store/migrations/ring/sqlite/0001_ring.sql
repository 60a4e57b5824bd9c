-- The key ring: a database of its own, so that a copy of the messages never
-- carries the keys to them. Times are unix milliseconds.
-- Applied migrations never change: add a new file.

-- Counts changes, so that a daemon polls one row; whoever changes the ring
-- raises it first, and so waits for whoever was before.
CREATE TABLE ring (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL
);
INSERT INTO ring (id, version) VALUES (1, 0);

CREATE TABLE ring_key (
    number BIGINT NOT NULL PRIMARY KEY, -- never used again
    purpose TEXT NOT NULL CHECK (purpose IN ('data', 'look-up', 'receipts')),
    tenant TEXT NOT NULL, -- empty for the installation
    generation BIGINT NOT NULL,
    wrapped BLOB, -- by the master key; null once it was destroyed
    created_at BIGINT NOT NULL,
    replaced_at BIGINT, -- null while new values are sealed with it
    destroyed_at BIGINT,
    UNIQUE (purpose, tenant, generation)
);
