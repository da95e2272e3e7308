-- SQLite has no row-level security. The number is kept so that both engines count alike.
SELECT 1;
