-- What a person decided about a dead letter, and what of it was told.

-- Parts that nobody counted: a daemon of before 0004 writes none. Unknown is
-- null, and is not judged. SQLite cannot change a column, so another takes its
-- name.
ALTER TABLE message ADD COLUMN parts_if_known BIGINT;
-- None, but some are there: such a daemon wrote it between 0004 and this.
UPDATE message SET parts_if_known = parts WHERE parts > 0 OR (parts = 0
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id)
    AND NOT EXISTS (SELECT 1 FROM parked WHERE message_id = message.id));
ALTER TABLE message DROP COLUMN parts;
ALTER TABLE message RENAME COLUMN parts_if_known TO parts;

-- When a person discarded a dead letter: its content is gone, its row stays.
ALTER TABLE delivery ADD COLUMN discarded_at BIGINT;

-- The latest of what an alert counts that was told, where more is told again.
ALTER TABLE alert ADD COLUMN told_to BIGINT;
