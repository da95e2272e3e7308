-- The second wall (ADR 0016): a row is seen and written only in the scope of its account, or in the scope '*' of the
-- server itself. The scope is the setting tabard.account of the session; where it is not set, nothing is seen. FORCE holds
-- the owner of the tables to it too, and the server is the owner. A table that a later migration adds brings its own.
DO $$
DECLARE t name;
BEGIN
    FOR t IN SELECT c.relname FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account' AND NOT a.attisdropped
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY of_account ON %I USING (account = current_setting(''tabard.account'', true)
            OR current_setting(''tabard.account'', true) = ''*'')', t);
    END LOOP;
END $$;

-- What belongs to a consent session is seen where the session is.
ALTER TABLE visits ENABLE ROW LEVEL SECURITY;
ALTER TABLE visits FORCE ROW LEVEL SECURITY;
CREATE POLICY of_flow ON visits USING (current_setting('tabard.account', true) = '*'
    OR EXISTS (SELECT 1 FROM flows f WHERE f.id = visits.flow));
ALTER TABLE hosted_logins ENABLE ROW LEVEL SECURITY;
ALTER TABLE hosted_logins FORCE ROW LEVEL SECURITY;
CREATE POLICY of_flow ON hosted_logins USING (current_setting('tabard.account', true) = '*'
    OR EXISTS (SELECT 1 FROM flows f WHERE f.id = hosted_logins.flow));
