//! PgBouncer, 1.18 or later: a pooler in front of a PostgreSQL.

use anyhow::Context;
use sqlx::{Connection, PgConnection, Row};
use url::Url;

use super::{About, Launch, Packages, postgres, text};
use crate::stack::{
    home::Home,
    programs::{Programs, installed, programs},
};

pub(super) const ABOUT: About = About {
    name: "PgBouncer",
    word: "pgbouncer",
    variable: "PGBOUNCER_URL",
    schemes: &["postgres", "postgresql"],
    packages: Packages { debian: "pgbouncer", fedora: "pgbouncer", brew: "pgbouncer" },
    image: None,
    container: None,
    compose_url: None,
    refuses_root: true,
    find: || installed("pgbouncer").find_map(programs),
    launch: |home, programs, port| Box::pin(async move { launch(home, programs, port) }),
    url: |home| Ok(with_port(&home.read("upstream")?, home.read("port")?.parse()?)?.into()),
    greet: |url| Box::pin(postgres::greet(url)),
    version: |url| Box::pin(version(url)),
};

/// The caller has written the URL of the PostgreSQL behind the pooler into the file `upstream` of its home. Clients log
/// in with the user and the password of that URL, and so does the pooler. A file `settings` may add further settings.
fn launch(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let upstream: Url =
        home.read("upstream").context("no PostgreSQL is named for PgBouncer")?.parse()?;
    let (user, password) = (upstream.username(), upstream.password().unwrap_or_default());
    let host = upstream.host_str().unwrap_or("127.0.0.1");
    let behind = upstream.port().unwrap_or(5432);
    let users = home.write("users.txt", &format!("\"{user}\" \"{password}\"\n"))?;
    let config = format!(
        "[databases]\n* = host={host} port={behind}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\n\
         admin_users = {user}\npool_mode = transaction\nmax_client_conn = 1000\n\
         ignore_startup_parameters = extra_float_digits\n{}\n",
        text(&users)?,
        home.read("settings").unwrap_or_default(),
    );
    let config = home.write("pgbouncer.ini", &config)?;
    Launch::new(&programs.server, &[&text(&config)?])
}

fn with_port(url: &str, port: u16) -> anyhow::Result<Url> {
    let mut url: Url = url.parse()?;
    url.set_port(Some(port)).ok().context("the URL takes no port")?;
    Ok(url)
}

/// PgBouncer's console is a database named `pgbouncer`, which takes only simple queries.
async fn version(url: &str) -> anyhow::Result<String> {
    let mut console: Url = url.parse()?;
    console.set_path("pgbouncer");
    let mut connection = PgConnection::connect(console.as_str()).await?;
    let row = sqlx::Executor::fetch_one(&mut connection, sqlx::raw_sql("show version")).await?;
    let version: String = row.try_get(0)?;
    Ok(version.trim_start_matches("PgBouncer ").to_owned())
}
