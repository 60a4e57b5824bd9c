-- As the schema of SQLite: a test compares the two. Texts sort by their bytes.
-- Times are unix milliseconds, days are days since 1970-01-01.
-- "sealed" columns open only with the key file, and only at their own row.
-- Applied migrations never change: add a new file.

-- Tells a wrong key file from the right one before anything is written.
CREATE TABLE key_check (
    number BIGINT NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL
);

-- Counts changes, so that a daemon polls one row.
CREATE TABLE revision (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    directory BIGINT NOT NULL,
    api_keys BIGINT NOT NULL
);
INSERT INTO revision (id, directory, api_keys) VALUES (1, 0, 0);

CREATE TABLE directory_record (
    kind TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE api_key (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    party TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);

-- One received message. Its content is not here, only its receipt.
CREATE TABLE message (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    party TEXT COLLATE "C" NOT NULL,
    test BOOLEAN NOT NULL,
    berrefnr BYTEA NOT NULL,
    body BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    message_type TEXT COLLATE "C" NOT NULL,
    edition TEXT COLLATE "C" NOT NULL,
    details BYTEA NOT NULL, -- sealed: reference, findings, domains
    shown BOOLEAN NOT NULL,
    parked BOOLEAN NOT NULL,
    dropped_at BIGINT
);
-- Look-ups go by reference alone, which is nearly unique.
CREATE UNIQUE INDEX message_by_berrefnr ON message (berrefnr, party);

-- Last number given out per receiving party and kind of traffic.
CREATE TABLE inbox (
    party TEXT COLLATE "C" NOT NULL,
    test BOOLEAN NOT NULL,
    last_sequence BIGINT NOT NULL,
    PRIMARY KEY (party, test)
);

-- One release on its way to its receiver; narrow, because it changes often.
CREATE TABLE delivery (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    message_id TEXT COLLATE "C" NOT NULL REFERENCES message (id),
    party TEXT COLLATE "C" NOT NULL,
    test BOOLEAN NOT NULL,
    sequence BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    message_type TEXT COLLATE "C" NOT NULL,
    edition TEXT COLLATE "C" NOT NULL,
    berrefnr BYTEA NOT NULL,
    policy_version TEXT COLLATE "C" NOT NULL,
    cases BYTEA NOT NULL, -- keyed hashes, 32 bytes each
    bytes BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    offered_at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('offered', 'leased', 'taken_over', 'dead')),
    lease TEXT COLLATE "C",
    lease_until BIGINT NOT NULL,
    leased_at BIGINT,
    attempt BIGINT NOT NULL,
    finished_at BIGINT,
    answered_at BIGINT,
    answer_positive BOOLEAN,
    rejection BYTEA -- sealed: code and reason
);
CREATE UNIQUE INDEX delivery_in_order ON delivery (party, test, sequence);
CREATE INDEX delivery_unfinished ON delivery (party, test, sequence) WHERE finished_at IS NULL;
CREATE INDEX delivery_dead ON delivery (party, test) WHERE state = 'dead';
CREATE INDEX delivery_by_message ON delivery (message_id);
CREATE INDEX delivery_by_berrefnr ON delivery (berrefnr);

CREATE TABLE payload (
    delivery_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES delivery (id) ON DELETE CASCADE,
    sealed BYTEA NOT NULL
);

-- What a route was told of a case.
CREATE TABLE ledger (
    entry BYTEA NOT NULL PRIMARY KEY, -- keyed hash of the other hashes
    route BYTEA NOT NULL,
    person BYTEA NOT NULL,
    case_hash BYTEA NOT NULL,
    forget_on BIGINT, -- null while the case is open
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL
);
CREATE INDEX ledger_by_person ON ledger (person);
CREATE INDEX ledger_by_case ON ledger (case_hash);
CREATE INDEX ledger_to_forget ON ledger (forget_on) WHERE forget_on IS NOT NULL;

-- That a route once knew a case, without dates or persons.
CREATE TABLE remembered (
    case_hash BYTEA NOT NULL,
    route BYTEA NOT NULL,
    until_day BIGINT NOT NULL,
    PRIMARY KEY (case_hash, route)
);
CREATE INDEX remembered_until ON remembered (until_day);

CREATE TABLE parked (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    message_id TEXT COLLATE "C" NOT NULL REFERENCES message (id),
    party TEXT COLLATE "C" NOT NULL,
    tenant TEXT COLLATE "C",
    reason TEXT COLLATE "C" NOT NULL,
    test BOOLEAN NOT NULL,
    received_at BIGINT NOT NULL,
    message_type TEXT COLLATE "C" NOT NULL,
    edition TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL,
    sealed BYTEA NOT NULL
);
CREATE INDEX parked_by_party ON parked (party);
CREATE INDEX parked_by_tenant ON parked (tenant);
CREATE INDEX parked_by_message ON parked (message_id);
CREATE INDEX parked_by_age ON parked (received_at);

CREATE TABLE parked_person (
    parked_id TEXT COLLATE "C" NOT NULL REFERENCES parked (id) ON DELETE CASCADE,
    person BYTEA NOT NULL,
    PRIMARY KEY (parked_id, person)
);
CREATE INDEX parked_by_person ON parked_person (person);

-- What was kept back, in numbers: for operators, without persons.
CREATE TABLE withheld (
    on_day BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    party TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    test BOOLEAN NOT NULL,
    message_type TEXT COLLATE "C" NOT NULL,
    rule TEXT COLLATE "C" NOT NULL,
    total BIGINT NOT NULL,
    PRIMARY KEY (on_day, tenant, party, domain, test, message_type, rule)
);
