-- A dead letter that is made due again gets a new number, and so does what has
-- to stay behind it. The first number keeps the order in which the releases
-- were made: what is newer than what. Null for what was never numbered anew.
ALTER TABLE delivery ADD COLUMN first_sequence BIGINT;

-- Lists of dead letters go by id, page by page.
CREATE INDEX delivery_dead_by_id ON delivery (id) WHERE state = 'dead';
