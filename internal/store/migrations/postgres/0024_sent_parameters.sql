-- The names of all custom parameters that a consent session was opened with: its polls are decided with each of them, also
-- with those that do not name the token.
ALTER TABLE flows ADD COLUMN sent_names TEXT COLLATE "C" NOT NULL DEFAULT '';
