ALTER TABLE scanner_state DROP COLUMN first_block, DROP COLUMN said;
