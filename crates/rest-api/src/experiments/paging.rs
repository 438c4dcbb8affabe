//! Who reads a list that changes: does the reader see each row once? And what does a page far down cost?

use std::{collections::HashMap, time::Instant};

use anyhow::Context;
use conform::{expect::json_of, http::header};
use lab::{Experiment, Lab, Sabotage, load::median};
use sqlx::PgPool;

use super::fixture::Fixture;
use crate::{cases::client::Client, page::PageQuery, store::Store};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Users that are there all the time while others come and go
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(i32).range(50..=10_000))]
    users: i32,
    /// Rows of the table in which deep pages are read
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i32).range(2_000..=5_000_000))]
    rows: i32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "paging",
        "While rows come and go, pages by offset show some rows twice and skip others; a cursor does that to no row that is \
         there all the time. An offset costs more the deeper it is, a cursor hardly does",
        &["--users", "120", "--rows", "5000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: r#"" and ({column}, id) {than} (""#,
        with: r#"" and ({column}, id) {than}= (""#,
        check: "by cursor: rows that were seen twice",
    })
}

const LIMIT: usize = 20;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = fixture.start().await?;
    fixture.fill(params.users, 0).await?;
    let mut rows = Vec::new();
    for by_cursor in [false, true] {
        let way = if by_cursor { "by cursor" } else { "by offset" };
        lab.progress(u64::from(by_cursor), 3, format!("a list that changes is read {way}"));
        let seen = if by_cursor {
            by_cursors(&fixture, &client).await?
        } else {
            by_offsets(&fixture).await?
        };
        let twice = seen.values().filter(|times| **times > 1).count();
        let stayed = usize::try_from(params.users)?;
        let skipped = stayed - seen.len();
        rows.push(vec![way.to_owned(), stayed.to_string(), twice.to_string(), skipped.to_string()]);
        if by_cursor {
            lab.check_eq(format!("{way}: rows that were seen twice"), 0, twice);
            lab.check_eq(format!("{way}: rows that were skipped"), 0, skipped);
        } else {
            lab.check(format!("{way}: rows that were seen twice"), "1 or more", twice, twice > 0);
            lab.check(format!("{way}: rows that were skipped"), "1 or more", skipped, skipped > 0);
        }
    }
    let columns = ["way", "rows that were there all the time", "seen twice", "skipped"];
    lab.table("A list is read while others come and go", &columns, rows);
    lab.progress(2, 3, "pages far down");
    depth(&lab, params.rows).await
}

/// Counts the users that stay; the others begin with `x`.
fn count(seen: &mut HashMap<String, u32>, names: impl Iterator<Item = String>) {
    for name in names.filter(|name| name.starts_with("user")) {
        *seen.entry(name).or_default() += 1;
    }
}

async fn by_cursors(fixture: &Fixture, client: &Client) -> anyhow::Result<HashMap<String, u32>> {
    let (mut seen, mut path) = (HashMap::new(), Some(format!("/users?sort=name&limit={LIMIT}")));
    for page in 0.. {
        let Some(at) = path else { break };
        let response = client.get(&at, &[]).await?;
        let link = header(&response, "link").split(['<', '>']).nth(1).map(str::to_owned);
        let body = json_of(response, 200).await?;
        let items = body["items"].as_array().context("no items")?;
        count(&mut seen, items.iter().filter_map(|it| Some(it["name"].as_str()?.to_owned())));
        path = link;
        others(&fixture.pool, page).await?;
    }
    Ok(seen)
}

async fn by_offsets(fixture: &Fixture) -> anyhow::Result<HashMap<String, u32>> {
    let mut seen = HashMap::new();
    for page in 0.. {
        let names =
            sqlx::query_scalar("select name from users order by name, id limit $1 offset $2")
                .bind(i64::try_from(LIMIT)?)
                .bind(i64::from(page) * i64::try_from(LIMIT)?);
        let names: Vec<String> = names.fetch_all(&fixture.pool).await?;
        if names.is_empty() {
            break;
        }
        count(&mut seen, names.into_iter());
        others(&fixture.pool, page).await?;
    }
    Ok(seen)
}

/// Others come and go before the place where the reader is: seven come after one page, and seven go after the next.
async fn others(pool: &PgPool, page: u32) -> anyhow::Result<()> {
    let change = if page.is_multiple_of(2) {
        r#"
        insert into users (id, name, email, email_key)
        select id, 'a visitor', id::text, id::text
        from (select gen_random_uuid() as id from generate_series(1, 7)) as new
        "#
    } else {
        "delete from users where name = 'a visitor'"
    };
    sqlx::raw_sql(change).execute(pool).await?;
    Ok(())
}

const TITLE: &str = "A page of twenty, by the rows before it";
const AXES: (&str, &str) = ("rows before the page", "ms");

/// The same page by offset and by cursor, at several depths.
async fn depth(lab: &Lab, rows: i32) -> anyhow::Result<()> {
    let fixture = Fixture::of(lab).await?;
    fixture.fill(rows, 0).await?;
    let store = Store::new(fixture.database.url())?;
    let (mut offsets, mut cursors) = (Vec::new(), Vec::new());
    for tenth in [0, 1, 3, 6, 9] {
        let before = i64::from(rows) * tenth / 10;
        let query = cursor_at(&fixture.pool, before).await?;
        let page = PageQuery::parse(&query).ok().context("a cursor of our own is refused")?;
        let (mut offset, mut cursor) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let begun = Instant::now();
            let select = "select id, name, email, tags, version, created_at, updated_at from users \
                          order by name, id limit 21 offset $1";
            sqlx::query(select).bind(before).fetch_all(&fixture.pool).await?;
            offset.push(begun.elapsed().as_secs_f64() * 1_000.0);
            let begun = Instant::now();
            store.page(&page).await?;
            cursor.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        let (offset, cursor) = (median(offset), median(cursor));
        lab.point(TITLE, AXES, "by offset", (before as f64, offset));
        lab.point(TITLE, AXES, "by cursor", (before as f64, cursor));
        offsets.push(offset);
        cursors.push(cursor);
    }
    let last = offsets.len() - 1;
    lab.figure("by offset: the deepest page ÷ the first", offsets[last] / offsets[0], "");
    // The first page has no place to continue from: it is another statement.
    let ratio = cursors[last] / cursors[1];
    lab.figure("by cursor: the deepest page ÷ the one at a tenth", ratio, "");
    lab.figure("the deepest page: by offset ÷ by cursor", offsets[last] / cursors[last], "");
    Ok(())
}

/// The query of the page that so many rows come before.
async fn cursor_at(pool: &PgPool, before: i64) -> anyhow::Result<String> {
    let query = format!("sort=name&limit={LIMIT}");
    if before == 0 {
        return Ok(query);
    }
    let select = "select id, name, email, tags, version, created_at, updated_at from users \
                  order by name, id limit 2 offset $1";
    let mut users = sqlx::query_as(select).bind(before - 1).fetch_all(pool).await?;
    // As a page of one that ends there would say it; but what is read is a page of twenty.
    let page =
        PageQuery::parse("sort=name&limit=1").ok().context("a query of our own is refused")?;
    let next = page.next(&mut users).context("there is no row behind it")?;
    Ok(next.replace("limit=1&", &format!("limit={LIMIT}&")))
}
