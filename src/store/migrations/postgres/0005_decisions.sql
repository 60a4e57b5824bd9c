-- What a person decided about a dead letter, and what of it was told.

-- Parts that nobody counted: a daemon of before 0004 writes none. Unknown is
-- null, and is not judged.
ALTER TABLE message ALTER COLUMN parts DROP DEFAULT, ALTER COLUMN parts DROP NOT NULL;
-- None, but some are there: such a daemon wrote it between 0004 and this.
UPDATE message SET parts = NULL WHERE parts < 0 OR (parts = 0
    AND (EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id)
        OR EXISTS (SELECT 1 FROM parked WHERE message_id = message.id)));

-- When a person discarded a dead letter: its content is gone, its row stays.
ALTER TABLE delivery ADD COLUMN discarded_at BIGINT;

-- The latest of what an alert counts that was told, where more is told again.
ALTER TABLE alert ADD COLUMN told_to BIGINT;
