//! What if `DATABASE_URL` names a pooler? A pooler that shares sessions may use another one for each transaction.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use lab::harness::{Completion, Trial};
use lab::{Service, child, database::Database};
use url::Url;
use url_shortener::MIGRATIONS;

use super::reader::Reader;
use crate::support::{Outcome, eventually, trial};

pub fn tests() -> Vec<Trial> {
    let name = "everything_works_behind_a_pooler_that_shares_sessions";
    vec![trial(module_path!(), name, || async {
        if Command::new("pgbouncer").arg("--version").output().is_err() {
            return Ok(Completion::ignored_with("pgbouncer is not installed"));
        }
        everything_works_behind_a_pooler_that_shares_sessions().await?;
        Ok(Completion::Completed)
    })]
}

/// `PgBouncer` in transaction mode, in front of a server.
struct Bouncer {
    process: Child,
    folder: PathBuf,
    url: Url,
}

impl Bouncer {
    async fn start(server: &str) -> anyhow::Result<Self> {
        let (server, folder) = (
            Url::parse(server)?,
            PathBuf::from(format!("/var/tmp/bouncer-{:016x}", std::process::id())),
        );
        let port = lab::port::free()?;
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let password = server.password().context("no password")?;
        fs::write(folder.join("users"), format!("\"postgres\" \"{password}\"\n"))?;
        fs::write(
            folder.join("bouncer.ini"),
            format!(
                "[databases]\n* = host=127.0.0.1 port={}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = plain\nauth_file = {}\npool_mode = transaction\n\
                 server_round_robin = 1\ndefault_pool_size = 10\n\
                 ignore_startup_parameters = extra_float_digits,options\n",
                server.port().context("no port")?,
                folder.join("users").display(),
            ),
        )?;
        let mut command = Command::new("pgbouncer");
        if is_root()? {
            command.args(["-u", "nobody"]);
        }
        let command = command.arg("-q").arg(folder.join("bouncer.ini"));
        let process = command.stderr(Stdio::null()).spawn().context("cannot run pgbouncer")?;
        let mut url = server.clone();
        url.set_port(Some(port)).ok().context("it can have a port")?;
        let bouncer = Self { process, folder, url };
        eventually("pgbouncer listens", || async {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        })
        .await?;
        Ok(bouncer)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn everything_works_behind_a_pooler_that_shares_sessions() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let bouncer = Bouncer::start(&reader.url(Service::Postgres)?).await?;
    for _ in 0..2 {
        // Side by side, so that each statement may find another session.
        let fresh = (0..6).map(|_| Database::fresh_on(bouncer.url.as_str(), "some", &MIGRATIONS));
        let fresh = join_all(fresh).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for database in &fresh {
            let links = reader.rows(database.name(), "select count(*)::text from links").await?;
            ensure!(links == ["0"], "{links:?}");
        }
    }
    for option in ["--port=0", "--port=0", "--reset", "--reset"] {
        let served = [option, option].map(|option| {
            child::Child::serve("url-shortener")
                .env("DATABASE_URL", bouncer.url.as_str())
                .arg(option)
        });
        let [one, two] = served;
        if option == "--reset" {
            one.start().await?.stop().await?;
        } else {
            // Two processes make and migrate the same database at the same moment.
            for child in join_all([one.start(), two.start()]).await {
                child?.stop().await?;
            }
        }
    }
    let marked = reader.marked().await?;
    ensure!(marked.iter().any(|it| it.starts_with("shop_url_shortener ")), "{marked:?}");
    ensure!(!marked.iter().any(|it| it.starts_with("worked_answers_fresh_")), "left: {marked:?}");
    let locks =
        reader.rows("postgres", "select count(*)::text from pg_locks where locktype = 'advisory'");
    ensure!(locks.await? == ["0"], "a lock was left in a session that others use");
    Ok(())
}

fn is_root() -> anyhow::Result<bool> {
    let id = Command::new("id").arg("-u").output().context("cannot run id")?;
    Ok(String::from_utf8_lossy(&id.stdout).trim() == "0")
}
