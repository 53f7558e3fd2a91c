-- Tables of the server's one SQLite file. docs/log-format.md, "Server tables", says what each column means, and what
-- `sum` covers.
CREATE TABLE logs (
  log INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  log_id BLOB NOT NULL,
  epochs INTEGER NOT NULL,
  next INTEGER NOT NULL,
  chain BLOB NOT NULL,
  accepted INTEGER NOT NULL,
  first INTEGER NOT NULL,
  first_chain BLOB NOT NULL,
  kept_bytes INTEGER NOT NULL,
  folds INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT;
CREATE TABLE epochs (
  log INTEGER NOT NULL,
  number INTEGER NOT NULL,
  epoch BLOB NOT NULL,
  first INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE bindings (
  author INTEGER PRIMARY KEY,
  actor BLOB NOT NULL UNIQUE,
  user TEXT NOT NULL,
  binding BLOB NOT NULL,
  sum INTEGER NOT NULL
) STRICT;
CREATE TABLE entries (
  log INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  author INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  base INTEGER NOT NULL,
  digest BLOB NOT NULL,
  chain BLOB NOT NULL,
  expires INTEGER,
  gone INTEGER,
  sum INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (log, offset)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_id ON entries (log, author, seq);
CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE actors (
  log INTEGER NOT NULL,
  author INTEGER NOT NULL,
  row BLOB NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (log, author)
) STRICT, WITHOUT ROWID;
CREATE TABLE replacements (
  log INTEGER NOT NULL,
  actor BLOB NOT NULL,
  seq INTEGER NOT NULL,
  digest BLOB NOT NULL,
  offset INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (log, actor, seq, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  log INTEGER NOT NULL,
  number INTEGER NOT NULL,
  next INTEGER NOT NULL,
  chain BLOB NOT NULL,
  size INTEGER NOT NULL,
  rests INTEGER,
  sum INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (log, number)
) STRICT;
CREATE TABLE dead_letters (
  letter INTEGER PRIMARY KEY,
  log INTEGER,
  author INTEGER,
  seq INTEGER,
  digest BLOB NOT NULL,
  source TEXT NOT NULL,
  code INTEGER NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  line_actor BLOB,
  line_seq INTEGER,
  line_digest BLOB,
  sum INTEGER NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_id ON dead_letters (log, author, seq);
CREATE INDEX dead_letters_by_digest ON dead_letters (digest);
CREATE TABLE erasures (
  log INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  request BLOB,
  what BLOB NOT NULL,
  at_ms INTEGER NOT NULL,
  reached INTEGER NOT NULL,
  done_ms INTEGER,
  sum INTEGER NOT NULL,
  PRIMARY KEY (log, offset)
) STRICT, WITHOUT ROWID;
CREATE TABLE connections (
  connection INTEGER PRIMARY KEY,
  user TEXT NOT NULL,
  client BLOB NOT NULL,
  actor BLOB NOT NULL,
  device TEXT NOT NULL,
  inactive INTEGER,
  since_ms INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  seen_ms INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  UNIQUE (user, client)
) STRICT;
CREATE TABLE cursors (
  connection INTEGER NOT NULL,
  log INTEGER NOT NULL,
  next INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (connection, log)
) STRICT, WITHOUT ROWID;
