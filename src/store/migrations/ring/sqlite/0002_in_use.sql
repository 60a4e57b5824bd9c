-- Since when this ring is in use with a store of messages; null until the first
-- store has its marks. A ring without it that has keys of tenants was in use.
ALTER TABLE ring ADD COLUMN in_use_since BIGINT;
UPDATE ring SET in_use_since = (SELECT MIN(created_at) FROM ring_key WHERE tenant <> '');
