-- The law of conservation, and what operators are told of.

-- How many deliveries and parked parts a message has: written with them, and
-- changed only with what makes or ends one.
ALTER TABLE message ADD COLUMN parts BIGINT NOT NULL DEFAULT 0;
UPDATE message SET parts = (SELECT COUNT(*) FROM delivery WHERE message_id = message.id)
    + (SELECT COUNT(*) FROM parked WHERE message_id = message.id);

-- Messages of which something is missing or in no state, as they were found.
CREATE TABLE unaccounted (
    message_id TEXT NOT NULL PRIMARY KEY,
    found_at BIGINT NOT NULL
);

-- Alerts that are raised now.
CREATE TABLE alert (
    name TEXT NOT NULL,
    subject TEXT NOT NULL, -- JSON object of words, without persons
    severity TEXT NOT NULL,
    since BIGINT NOT NULL,
    number BIGINT NOT NULL,
    raised_at BIGINT NOT NULL,
    PRIMARY KEY (name, subject)
);

-- What the webhook still has to be told.
CREATE TABLE alert_message (
    id TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL, -- JSON, without persons
    due_at BIGINT NOT NULL,
    attempt BIGINT NOT NULL
);
CREATE INDEX alert_message_due ON alert_message (due_at);

-- Which node looks now, so that one of several does.
CREATE TABLE watcher (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    node TEXT NOT NULL,
    until BIGINT NOT NULL
);
INSERT INTO watcher (id, node, until) VALUES (1, '', 0);
