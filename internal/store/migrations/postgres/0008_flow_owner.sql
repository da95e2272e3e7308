-- The open sessions of an agent and a user are counted before another is opened.
CREATE INDEX flows_owner ON flows (account, workload, user_ref, expires);

-- The origin of the authorization endpoint that discovery first named, as pinned is that of the token endpoint.
ALTER TABLE providers ADD COLUMN pinned_authorization TEXT COLLATE "C" NOT NULL DEFAULT '';
