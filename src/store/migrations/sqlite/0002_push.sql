-- What is pushed to its receiver is tried again at a time of its own.
ALTER TABLE delivery ADD COLUMN due_at BIGINT NOT NULL DEFAULT 0; -- 0: at once
ALTER TABLE delivery ADD COLUMN failures BIGINT NOT NULL DEFAULT 0; -- attempts that its receiver failed
ALTER TABLE delivery ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0; -- answers that it cannot be read
ALTER TABLE delivery ADD COLUMN first_failed_at BIGINT;

-- What one receiver holds at the moment: few rows, counted before each claim.
CREATE INDEX delivery_leased ON delivery (party, test) WHERE state = 'leased';

-- How a receiver that is pushed to does; no row yet is as one that works.
CREATE TABLE push_receiver (
    party TEXT NOT NULL,
    test BOOLEAN NOT NULL,
    failures BIGINT NOT NULL, -- in a row
    paused_until BIGINT, -- the next probe
    stopped BOOLEAN NOT NULL, -- until a person resumes it
    reason TEXT,
    changed_at BIGINT,
    PRIMARY KEY (party, test)
);
