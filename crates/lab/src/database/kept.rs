//! Where does a served answer keep what a reader makes? In a database with the answer's name, and never in one
//! that the reader made.
//!
//! If `DATABASE_URL` is set, we make a database beside the given one: `shop_url_shortener` beside `shop`. So
//! every answer can be served beside the others, `--reset` drops only what we made, and the given database stays as it
//! is. Two kinds of given databases are used directly, and both bear our mark: a fresh database, which a test or an
//! experiment gives to its child (also if that is the whiteboard version), and the answer's own kept database.

use anyhow::{bail, ensure};
use sqlx::migrate::Migrator;

use super::{
    admin::{Admin, Comment, with_database},
    make::make,
    mark::{Kind, Mark, readable_name},
    migrate::migrate,
};
use crate::{
    Service,
    stack::{self, Source},
};

/// The part of an answer for its whiteboard version, if that would do harm to what the answer keeps.
const WHITEBOARD: &str = "whiteboard";

/// The URL of the database that `serve` uses, made on first use and migrated. An answer of several services has one for
/// each, named by `part`. `reset` drops it first and makes an empty one.
pub async fn kept(
    answer: &str,
    part: Option<&str>,
    migrations: &Migrator,
    reset: bool,
) -> anyhow::Result<String> {
    let server = stack::server(Service::Postgres).await?;
    let mut words = vec![answer];
    words.extend(part);
    let of = words.join("/");
    let mut admin = Admin::connect(&server.url).await?;
    let mut name = readable_name(None, &words);
    if server.source == Source::Given {
        let given = admin.current.clone();
        name = match admin.comment(&given).await? {
            Some(Comment::Ours(mark))
                if mark.kind == Kind::Fresh && (part.is_none() || part == Some(WHITEBOARD)) =>
            {
                ensure!(!reset, "--reset is not for the database of an experiment");
                migrate(&server.url, migrations).await?;
                return Ok(server.url);
            }
            Some(Comment::Ours(mark)) if mark.is_kept(&of) => given.clone(),
            _ => readable_name(Some(&given), &words),
        };
        if reset && name == given {
            // Nobody can drop the database that they are connected to.
            admin = Admin::connect(&with_database(&server.url, "postgres")?).await?;
        }
        tracing::info!(database = name, "this answer has a database of its own");
    }
    let mark = Mark { kind: Kind::Kept, of, made: admin.now, schema: None };
    match admin.comment(&name).await? {
        None => {}
        Some(Comment::Ours(found)) if found.is_kept(&mark.of) => {}
        // A private server holds only what we made. Older databases of ours have no mark.
        Some(Comment::None) if server.source == Source::Private => {
            admin.mark(&name, &mark).await?;
        }
        Some(_) => {
            bail!(
                "the server has a database {name} that was not made here, so it is left alone. Rename it, or \
                 give another database in DATABASE_URL. If the answer may use it, mark it with\n\n    \
                 comment on database {name} is '{mark}';\n"
            )
        }
    }
    if reset {
        admin.drop(&name).await?;
    }
    let url = with_database(&server.url, &name)?;
    if admin.comment(&name).await?.is_none() {
        make(&mut admin, &server.url, &name, &mark, None).await?;
    }
    admin.close().await?;
    migrate(&url, migrations).await?;
    Ok(url)
}
