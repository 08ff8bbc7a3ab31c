//! The tables, and what is asked of them.

use millstream_service::ConnectError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Place;

/// Whoever makes the tables holds this lock: `IF NOT EXISTS` alone lets two find that there are none.
const MAKING: i64 = 0x4d53_7461_7465;

/// What a connection is told first. Plans go by the primary key, however young the statistics are; a commit that was
/// acknowledged is durable, whatever the server's default.
pub(super) const SESSION: &str = "
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan; SET default_transaction_isolation = 'read committed';
    SET client_min_messages = warning; SET statement_timeout = '120s'; SET lock_timeout = '60s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// What a connection is told before it lets go of a whole state.
pub(super) const PATIENCE: &str = "SET statement_timeout = '1h'";

impl Place {
    /// The SQL that makes what is missing.
    fn ddl(&self) -> Vec<String> {
        let schema = &self.schema;
        vec![
            format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""),
            format!(
                "CREATE TABLE IF NOT EXISTS \"{schema}\".task (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                 pipeline text NOT NULL, service text NOT NULL, partition integer NOT NULL, owner bytea NOT NULL, \
                 outbox bytea, opened timestamptz NOT NULL DEFAULT now(), UNIQUE (pipeline, service, partition)) \
                 WITH (fillfactor = 50)"
            ),
            // The events in it are Arrow columns: compressing them costs more than it saves.
            format!("ALTER TABLE \"{schema}\".task ALTER COLUMN outbox SET STORAGE EXTERNAL"),
            format!(
                "CREATE TABLE IF NOT EXISTS \"{schema}\".state (task bigint NOT NULL, key bytea NOT NULL, long_key bytea, \
                 value bytea NOT NULL, PRIMARY KEY (task, key))"
            ),
        ]
    }

    /// Makes the tables where they are missing.
    pub(super) async fn make(&self, client: &mut Client) -> Result<(), ConnectError> {
        let found =
            "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename IN ('task', 'state')";
        let tables: i64 = client.query_one(found, &[&self.schema]).await.map_err(|e| self.error(&e))?.get(0);
        if tables == 2 {
            return Ok(());
        }
        let made = async {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
            let there = "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = $1";
            let there: i64 = transaction.query_one(there, &[&self.schema]).await?.get(0);
            for statement in self.ddl().iter().skip(usize::from(there > 0)) {
                transaction.batch_execute(statement).await?;
            }
            transaction.commit().await
        };
        made.await.map_err(|error| match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => self.may_not_make(&error),
            _ => self.error(&error),
        })
    }

    fn may_not_make(&self, error: &tokio_postgres::Error) -> ConnectError {
        let why = error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default();
        let user = self.config.get_user().unwrap_or("the_user");
        let schema = &self.schema;
        ConnectError::refused(format!(
            "PostgreSQL at {}: {why}. Let somebody who may make tables run: {}; GRANT USAGE ON SCHEMA \"{schema}\" TO \
             \"{user}\"; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{user}\"",
            self.address(),
            self.ddl().join("; "),
        ))
    }

    /// The staged commit of a task.
    pub(super) fn look(&self) -> String {
        format!("SELECT outbox FROM \"{}\".task WHERE pipeline = $1 AND service = $2 AND partition = $3", self.schema)
    }

    /// The number of a task.
    pub(super) fn number(&self) -> String {
        format!("SELECT id FROM \"{}\".task WHERE pipeline = $1 AND service = $2 AND partition = $3", self.schema)
    }

    /// Makes somebody the owner of a task. Waits for a transaction of the one before.
    pub(super) fn own(&self) -> String {
        format!(
            "INSERT INTO \"{}\".task (pipeline, service, partition, owner) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (pipeline, service, partition) DO UPDATE SET owner = excluded.owner, opened = now() \
             RETURNING id, outbox",
            self.schema
        )
    }

    /// A part of a task's state.
    pub(super) fn rows(&self) -> String {
        format!(
            "SELECT key, long_key, value FROM \"{}\".state WHERE task = $1 AND key >= $2 ORDER BY key LIMIT $3",
            self.schema
        )
    }

    /// One commit of a task: nothing of it happens unless the owner is still the same. Answers how many tasks were found.
    pub(super) fn store(&self) -> String {
        let schema = &self.schema;
        format!(
            "WITH mine AS (UPDATE \"{schema}\".task SET outbox = $3 WHERE id = $1 AND owner = $2 RETURNING id), \
             put AS (INSERT INTO \"{schema}\".state (task, key, long_key, value) \
               SELECT mine.id, c.key, c.long_key, c.value \
               FROM mine, unnest($4::bytea[], $5::bytea[], $6::bytea[]) AS c (key, long_key, value) \
               ON CONFLICT (task, key) DO UPDATE SET long_key = excluded.long_key, value = excluded.value), \
             gone AS (DELETE FROM \"{schema}\".state WHERE task = (SELECT id FROM mine) AND key = ANY ($7::bytea[])) \
             SELECT count(*) FROM mine"
        )
    }

    /// Lets go of all rows of a task's state, on the same condition, and with the same answer.
    pub(super) fn void(&self) -> String {
        let schema = &self.schema;
        format!(
            "WITH mine AS (UPDATE \"{schema}\".task SET outbox = $3 WHERE id = $1 AND owner = $2 RETURNING id), \
             gone AS (DELETE FROM \"{schema}\".state WHERE task = (SELECT id FROM mine) AND key <> ''::bytea), \
             begun AS (INSERT INTO \"{schema}\".state (task, key, value) SELECT id, ''::bytea, ''::bytea FROM mine \
               ON CONFLICT (task, key) DO UPDATE SET value = excluded.value) \
             SELECT count(*) FROM mine"
        )
    }
}
