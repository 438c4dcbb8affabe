//! A PostgreSQL primary with two standbys, one synchronous and one asynchronous. Nothing fails over by itself: the
//! experiment promotes a standby.

use std::{fs, process::Stdio};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;

use super::{PATIENCE, ServerGroup, adapt, prepare, soon, start_all, until};
use crate::{
    needs::Group,
    stack::{own::OwnServer, programs::undisturbed},
};

/// The member that is the primary at first.
pub const PRIMARY: usize = 0;
/// The member that confirms every commit before the primary answers.
pub const SYNCHRONOUS: usize = 1;
/// The member that receives every commit a moment later.
pub const ASYNCHRONOUS: usize = 2;

/// The group.
#[derive(Debug)]
pub struct PostgresGroup {
    /// [`PRIMARY`], [`SYNCHRONOUS`] and [`ASYNCHRONOUS`].
    pub members: Vec<OwnServer>,
}

impl ServerGroup for PostgresGroup {
    const GROUP: Group = Group::PostgresStandbys;

    async fn start() -> anyhow::Result<Self> {
        let mut members = prepare(Self::GROUP, 3).await?;
        for member in &mut members {
            // A standby whose primary has gone looks for the next one at once, not after five seconds.
            let setting = "wal_retrieve_retry_interval=100ms".to_owned();
            adapt(member, move |launch| launch.command.extend(["-c".to_owned(), setting.clone()]));
        }
        members[PRIMARY].restart().await?;
        let mut group = Self { members };
        // Make both slots before any backup: a backup makes a checkpoint, and a checkpoint removes the WAL that a slot
        // made later would need.
        for standby in [SYNCHRONOUS, ASYNCHRONOUS] {
            group.slot(standby, PRIMARY).await?;
        }
        let copies = [SYNCHRONOUS, ASYNCHRONOUS].map(|it| group.base_backup(it, PRIMARY));
        join_all(copies).await.into_iter().collect::<anyhow::Result<()>>()?;
        start_all(&mut group.members[SYNCHRONOUS..]).await?;
        group.wait_for_commits_on(PRIMARY, Some(SYNCHRONOUS)).await?;
        until("both standbys to follow", PATIENCE, || group.follow_state(PRIMARY)).await?;
        Ok(group)
    }

    fn members(&self) -> &[OwnServer] {
        &self.members
    }
}

impl PostgresGroup {
    /// The primary: among the members that take writes, the one that was promoted last. An old primary that comes back
    /// takes writes too, on the old timeline.
    pub async fn leader(&self) -> Option<usize> {
        let timelines = (0..self.members.len()).map(|member| soon(self.timeline(member)));
        let timelines = join_all(timelines).await.into_iter().enumerate();
        let primaries = timelines.filter_map(|(member, timeline)| Some((timeline??, member)));
        primaries.max().map(|(_, member)| member)
    }

    /// The timeline that this member writes, if it is a primary.
    async fn timeline(&self, member: usize) -> anyhow::Result<Option<i64>> {
        let mut connection = self.connect(member).await?;
        // On a standby the function for the current position fails, and the `case` does not call it there.
        let query = sqlx::query_scalar(
            r#"
            select case when not pg_is_in_recovery()
                   then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
                   end
            "#,
        );
        Ok(query.fetch_one(&mut connection).await?)
    }

    /// Makes a standby the primary, and returns when it takes writes. The other standby goes on following the old
    /// primary: see [`follow`](Self::follow).
    pub async fn promote(&self, member: usize) -> anyhow::Result<()> {
        let mut connection = self.connect(member).await?;
        let query = sqlx::query_scalar("select pg_promote(wait => true, wait_seconds => 60)");
        let promoted: bool = query.fetch_one(&mut connection).await?;
        ensure!(promoted, "it was not promoted within a minute");
        Ok(())
    }

    /// Makes a running standby follow another primary. This works only if the standby has no commit that the new
    /// primary lacks.
    pub async fn follow(&self, member: usize, primary: usize) -> anyhow::Result<()> {
        self.slot(member, primary).await?;
        let conninfo = self.conninfo(member, primary)?;
        self.set(member, "primary_conninfo", &conninfo).await
    }

    /// Deletes the data of a member and makes it a standby of this primary. This always works. Commits of an old
    /// primary that the new one never received are lost.
    pub async fn rebuild(&mut self, member: usize, primary: usize) -> anyhow::Result<()> {
        if self.members[member].is_running()? {
            self.members[member].kill().await?;
        }
        let data = self.members[member].home().path.join("data");
        fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
        self.base_backup(member, primary).await?;
        self.members[member].restart().await
    }

    /// From now on, every commit on this primary waits for this standby, or for no standby.
    pub async fn wait_for_commits_on(
        &self,
        primary: usize,
        standby: Option<usize>,
    ) -> anyhow::Result<()> {
        let names = standby.map_or_else(String::new, |it| format!("FIRST 1 ({})", name(it)));
        self.set(primary, "synchronous_standby_names", &names).await
    }

    /// Changes a setting of a running member.
    async fn set(&self, member: usize, name: &str, value: &str) -> anyhow::Result<()> {
        let mut connection = self.connect(member).await?;
        // `alter system` takes no parameters, and must be a statement of its own.
        let statement = AssertSqlSafe(format!("alter system set {name} = '{value}'"));
        sqlx::query(statement).execute(&mut connection).await?;
        sqlx::query("select pg_reload_conf()").execute(&mut connection).await?;
        Ok(())
    }

    /// `Some` if one standby follows synchronously and the other asynchronously.
    async fn follow_state(&self, primary: usize) -> anyhow::Result<Option<()>> {
        let mut connection = self.connect(primary).await?;
        let query = sqlx::query_scalar(
            r#"
            select application_name || ' ' || sync_state
            from pg_stat_replication
            where state = 'streaming'
            order by 1
            "#,
        );
        let states: Vec<String> = query.fetch_all(&mut connection).await?;
        let wanted =
            [format!("{} sync", name(SYNCHRONOUS)), format!("{} async", name(ASYNCHRONOUS))];
        Ok((states == wanted).then_some(()))
    }

    /// Copies a running primary into the folder of a member that does not run, as its standby.
    async fn base_backup(&self, member: usize, primary: usize) -> anyhow::Result<()> {
        self.slot(member, primary).await?;
        let standby = &self.members[member];
        let home = standby.home();
        let mut backup = Command::new(standby.programs()?.folder.join("pg_basebackup"));
        undisturbed(backup.as_std_mut())
            .arg("--pgdata")
            .arg(home.path.join("data"))
            .args(["--dbname", &self.conninfo(member, primary)?])
            // Writes the settings of a standby, with this connection.
            .args(["--write-recovery-conf", "--wal-method=stream", "--slot", &name(member)])
            .args(["--checkpoint=fast", "--no-sync"])
            .current_dir(&home.path)
            .stdin(Stdio::null());
        backup.kill_on_drop(true);
        if let Some(account) = home.account {
            backup.uid(account.uid).gid(account.gid);
        }
        let output = backup.output().await.context("pg_basebackup cannot be run")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pg_basebackup failed:\n{words}");
        Ok(())
    }

    /// From now on the primary keeps the WAL that this standby has not yet received, even while the standby is down.
    async fn slot(&self, member: usize, primary: usize) -> anyhow::Result<()> {
        let query = sqlx::query(
            r#"
            select pg_create_physical_replication_slot($1, immediately_reserve => true)
            where not exists (select from pg_replication_slots where slot_name = $1)
            "#,
        );
        query.bind(name(member)).execute(&mut self.connect(primary).await?).await?;
        Ok(())
    }

    /// The connection string with which this member follows that primary.
    fn conninfo(&self, member: usize, primary: usize) -> anyhow::Result<String> {
        let server = &self.members[primary];
        Ok(format!(
            "host=127.0.0.1 port={} user=postgres password={} application_name={}",
            server.port()?,
            server.home().read("password")?,
            name(member),
        ))
    }

    async fn connect(&self, member: usize) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.members[member].url()?).await?)
    }
}

/// The name of a member, and of its slot.
fn name(member: usize) -> String {
    format!("member_{member}")
}
