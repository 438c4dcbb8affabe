//! How do we create, mark, rename and drop databases? Every statement about databases as a whole is in this file.
//!
//! Invariant: no statement here relies on a session. Behind a pooler, two statements of one connection may run
//! in two sessions, so nothing is locked, prepared or set; each statement stands alone.

use anyhow::{Context, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgRow};
use url::Url;

use super::mark::Mark;

/// A connection to a server, for statements about its databases.
#[derive(Debug)]
pub(super) struct Admin {
    connection: PgConnection,
    /// The role that we are logged in as.
    pub(super) role: String,
    /// The database that the URL named.
    pub(super) current: String,
    /// The server's clock when this connection began, in seconds since 1970.
    pub(super) now: i64,
}

impl Admin {
    pub(super) async fn connect(server: &str) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(server).await?;
        let hello = sqlx::raw_sql(
            r#"
            select
                current_user::text,
                current_database()::text,
                extract(epoch from now())::bigint
            "#,
        );
        let row = hello.fetch_one(&mut connection).await?;
        let (role, current, now) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Self { connection, role, current, now })
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close().await?)
    }

    /// Every database that bears our mark and belongs to our role.
    pub(super) async fn marked(&mut self) -> anyhow::Result<Vec<(String, Mark)>> {
        let rows = self
            .rows(
                r#"
                select datname::text, shobj_description(oid, 'pg_database')
                from pg_database
                where datdba = (select oid from pg_roles where rolname = current_user)
                "#
                .to_owned(),
            )
            .await?;
        let marked = |row: PgRow| -> anyhow::Result<Option<(String, Mark)>> {
            let comment: Option<String> = row.try_get(1)?;
            let mark = comment.and_then(|it| Mark::parse(&it));
            mark.map(|mark| anyhow::Ok((row.try_get(0)?, mark))).transpose()
        };
        rows.into_iter().filter_map(|row| marked(row).transpose()).collect()
    }

    /// The comment on a database: `None` if there is no such database.
    pub(super) async fn comment(&mut self, name: &str) -> anyhow::Result<Option<Comment>> {
        let rows = self
            .rows(format!(
                r#"
                select shobj_description(oid, 'pg_database')
                from pg_database
                where datname = {}
                "#,
                literal(name)
            ))
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let comment: Option<String> = row.try_get(0)?;
        Ok(Some(match comment {
            None => Comment::None,
            Some(text) => Mark::parse(&text).map_or(Comment::Foreign, Comment::Ours),
        }))
    }

    /// Marks a database as ours.
    pub(super) async fn mark(&mut self, name: &str, mark: &Mark) -> anyhow::Result<()> {
        let mark = literal(&mark.to_string());
        let sql = format!("comment on database {} is {mark}", identifier(name));
        Ok(self.execute(sql).await?)
    }

    /// Creates a database as a copy of `template`, or of PostgreSQL's own `template0` if none is given. Not of
    /// `template1`: a reader may have put something there.
    pub(super) async fn create(
        &mut self,
        name: &str,
        template: Option<&str>,
    ) -> anyhow::Result<()> {
        self.announce(name).await?;
        let template = identifier(template.unwrap_or("template0"));
        let sql = format!("create database {} template {template}", identifier(name));
        match self.execute(sql).await {
            Err(error) if code(&error) == Some(INSUFFICIENT_PRIVILEGE) => {
                let role = identifier(&self.role);
                bail!(
                    "the role {role} may not create databases on this server, and every answer and \
                     experiment needs one of its own. Allow it with\n\n    alter role {role} createdb;\n"
                )
            }
            outcome => outcome.with_context(|| format!("cannot create the database {name}")),
        }
    }

    /// Shows the name in this session before the statement that gives it to a database: see
    /// [`may_still_come`](Self::may_still_come).
    async fn announce(&mut self, name: &str) -> sqlx::Result<()> {
        self.execute(format!("select 1 as {}", identifier(name))).await
    }

    /// Whether a session of a dead process may still give this name to a database. A server finishes a statement even
    /// if its client was killed, and the statement may not have reached the server yet. PostgreSQL shows the last
    /// statement of each session. Here that is either the one that gives the name, or the announcement of it.
    /// After that statement, the session finds that its client has gone, and ends.
    ///
    /// Behind a pooler, the announcement and the statement may be in two sessions, so a statement that has not begun
    /// may be missed.
    pub(super) async fn may_still_come(&mut self, name: &str) -> anyhow::Result<bool> {
        let rows = self
            .rows(format!(
                r#"
                select pid
                from pg_stat_activity
                where pid <> pg_backend_pid() and strpos(query, {}) > 0
                "#,
                literal(&identifier(name))
            ))
            .await?;
        Ok(!rows.is_empty())
    }

    /// Drops a database, even if somebody is connected to it.
    pub(super) async fn drop(&mut self, name: &str) -> anyhow::Result<()> {
        let sql = format!("drop database if exists {} with (force)", identifier(name));
        Ok(self.execute(sql).await?)
    }

    /// The same, but a failure is only logged, so that it does not stop a new run. Returns whether the database is
    /// gone.
    pub(super) async fn drop_or_warn(&mut self, name: &str) -> bool {
        let dropped = self.drop(name).await;
        if let Err(error) = &dropped {
            tracing::warn!(%error, name, "cannot drop a database of an old run");
        }
        dropped.is_ok()
    }

    /// Renames and marks a database in one transaction, if the new name is free and nobody is connected.
    pub(super) async fn rename(&mut self, name: &str, to: &str, mark: &Mark) -> sqlx::Result<()> {
        self.announce(to).await?;
        let (name, to, mark) = (identifier(name), identifier(to), literal(&mark.to_string()));
        let sql =
            format!("alter database {name} rename to {to}; comment on database {to} is {mark}");
        self.execute(sql).await
    }

    /// Ends every session of a database, and allows no new ones. A pooler keeps sessions open after its clients have
    /// gone, and may open others.
    pub(super) async fn seal(&mut self, name: &str) -> anyhow::Result<()> {
        let seal = format!("alter database {} allow_connections false", identifier(name));
        self.execute(seal).await?;
        let disconnect = format!(
            r#"
            select pg_terminate_backend(pid, 5000)
            from pg_stat_activity
            where datname = {}
            "#,
            literal(name)
        );
        Ok(self.execute(disconnect).await?)
    }

    async fn execute(&mut self, sql: String) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn rows(&mut self, sql: String) -> anyhow::Result<Vec<PgRow>> {
        Ok(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await?)
    }
}

/// The comment on a database.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comment {
    None,
    Foreign,
    Ours(Mark),
}

/// There is a database of this name.
const DUPLICATE_DATABASE: &str = "42P04";
/// The same, if another process makes the database at the same moment: PostgreSQL's own check passes, and then the
/// unique index refuses the second one.
const UNIQUE_VIOLATION: &str = "23505";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// There is no database of this name.
pub(super) const NO_SUCH_DATABASE: &str = "3D000";

/// Whether another process has just taken the name.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(DUPLICATE_DATABASE | UNIQUE_VIOLATION))
}

/// PostgreSQL's code for what went wrong.
pub(super) fn code(error: &sqlx::Error) -> Option<&str> {
    match error {
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
            .map(sqlx::postgres::PgDatabaseError::code),
        _ => None,
    }
}

/// The server's URL, with this database in it.
pub(super) fn with_database(server: &str, name: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(server)?;
    url.set_path(name);
    Ok(url.into())
}

/// Quotes a name. Names and comments cannot be bound as parameters.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    // Backslashes need no escape: they count only in strings that begin with an E.
    format!("'{}'", text.replace('\'', "''"))
}
