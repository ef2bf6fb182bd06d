-- Who sends with a key: names of trades are told apart by it. Empty: the one sender that all keys of before are.
ALTER TABLE api_keys ADD COLUMN source TEXT NOT NULL DEFAULT '';
