//! Who notices a wrong document? Three versions of a program write customers, and the third has a mistake.

use std::time::Instant;

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};
use sqlx::types::Json;

use super::fixture::Fixture;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Customers that the three versions write
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    customers: u32,
    /// Rows of the table that gets a new column
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    rows: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "schema",
        "Tables refuse what two of three versions of a program write, at once; documents take all of it, and only a reader \
         finds the wrong third, unless a check constraint says what a document looks like. A new column of a large table is \
         made without rewriting it, unless its default differs from row to row",
        &["--customers", "90", "--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/schema.rs",
        replace: r#"(Some(phone), false) => fields.insert("phones".to_owned(), json!([phone])),"#,
        with: r#"(Some(_), false) => fields.insert("phones".to_owned(), json!([])),"#,
        check: "documents of version 1 whose phone today's reader does not see",
    })
}

/// What a version of the program writes. Version 3 wants to write version 2, and forgets the list.
fn written(version: u32, n: u32) -> Value {
    let phone = format!("+44 {n}");
    match version {
        1 => json!({ "name": "Ada", "country": "GB", "phone": phone, "balance_cents": 0 }),
        2 => json!({ "name": "Ada", "country": "GB", "phones": [phone], "balance_cents": 0 }),
        _ => json!({ "name": "Ada", "country": "GB", "phones": phone, "balance_cents": 0 }),
    }
}

/// The statement with which each version writes into tables. After the migration there is no column `phone`.
fn into_tables(version: u32) -> &'static str {
    match version {
        1 => {
            "insert into customers (id, name, country, phone) values ($1, $2 ->> 'name', $2 ->> 'country', $2 ->> 'phone')"
        }
        2 => {
            "insert into customers (id, name, country, phones) values ($1, $2 ->> 'name', $2 ->> 'country', array(select jsonb_array_elements_text($2 -> 'phones')))"
        }
        _ => {
            "insert into customers (id, name, country, phones) values ($1, $2 ->> 'name', $2 ->> 'country', ($2 ->> 'phones')::text[])"
        }
    }
}

const INTO_DOCUMENTS: &str = "insert into customer_documents (id, body) values ($1, $2)";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let each = params.customers / 3;
    let mut rows = Vec::new();
    let with_check = write(&fixture, each, |_| INTO_DOCUMENTS).await?;
    sqlx::raw_sql(
        "truncate customer_documents; alter table customer_documents drop constraint shape",
    )
    .execute(&fixture.pool)
    .await?;
    lab.progress(1, 4, "customers are written");
    for (place, taken) in [
        ("tables", write(&fixture, each, into_tables).await?),
        ("documents", write(&fixture, each, |_| INTO_DOCUMENTS).await?),
        ("documents with a check", with_check),
    ] {
        let expected = match place {
            "tables" => [0, each, 0],
            "documents" => [each; 3],
            _ => [each, each, 0],
        };
        let words = |it: [u32; 3]| format!("{} + {} + {}", it[0], it[1], it[2]);
        let check = format!("{place}: taken of versions 1, 2 and 3");
        lab.check_eq(check, words(expected), words(taken));
        rows.push([vec![place.to_owned()], taken.map(|it| it.to_string()).to_vec()].concat());
    }
    lab.table("Customers that were taken", &["by", "version 1", "version 2", "version 3"], rows);
    lab.progress(2, 4, "documents are read");
    let (_child, client) = fixture.start("documents").await?;
    read(&lab, &client, each.min(300)).await?;
    lab.progress(3, 4, "a column is added");
    new_columns(&lab, &fixture, params.rows).await
}

/// Lets each version write; how many of each were taken.
async fn write(
    fixture: &Fixture,
    each: u32,
    statement: impl Fn(u32) -> &'static str,
) -> anyhow::Result<[u32; 3]> {
    let mut taken = [0; 3];
    for version in 1..=3 {
        let statement = statement(version);
        let writers = (0..5).map(|writer| async move {
            let mut taken = 0;
            for n in (writer..each).step_by(5) {
                let insert = sqlx::query(statement).bind(format!("v{version}-{n}"));
                let insert = insert.bind(Json(written(version, n))).execute(&fixture.pool).await;
                match insert {
                    Ok(_) => taken += 1,
                    Err(sqlx::Error::Database(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(taken)
        });
        taken[version as usize - 1] = try_join_all(writers).await?.into_iter().sum();
    }
    Ok(taken)
}

/// Reads some documents of each version through the program.
async fn read(lab: &Lab, client: &Client, each: u32) -> anyhow::Result<()> {
    let (mut unseen, mut good, mut unreadable) = (0, 0, 0);
    for n in 0..each {
        for version in 1..=3 {
            let answer = client.target.get(&format!("customers/v{version}-{n}")).await?;
            let status = answer.status().as_u16();
            let seen: Value = serde_json::from_str(&answer.text().await?).unwrap_or_default();
            let sees = status == 200 && seen["phones"] == json!([format!("+44 {n}")]);
            match version {
                1 => unseen += u32::from(!sees),
                2 => good += u32::from(sees),
                _ => unreadable += u32::from(status == 500),
            }
        }
    }
    lab.check_eq("documents of version 1 whose phone today's reader does not see", 0, unseen);
    lab.check_eq("documents of version 2 that it reads", each, good);
    lab.check_eq("documents of version 3 that it finds to be wrong", each, unreadable);
    Ok(())
}

/// A column with one default for all rows is a note in the catalogue; the file of the table stays. With a default that is
/// computed for each row, PostgreSQL writes a new file.
async fn new_columns(lab: &Lab, fixture: &Fixture, rows: u32) -> anyhow::Result<()> {
    let pool = &fixture.pool;
    let fill =
        "create table large as select n, md5(n::text) as text from generate_series(1, $1) as n";
    // A statement that defines a table takes no parameters.
    sqlx::query(sqlx::AssertSqlSafe(fill.replace("$1", &rows.to_string()))).execute(pool).await?;
    let file = async || {
        let file = "select pg_relation_filenode('large')::bigint";
        sqlx::query_scalar::<_, i64>(file).fetch_one(pool).await
    };
    let mut took = Vec::new();
    for (name, add, is_rewritten) in [
        ("with one default", "alter table large add column seven int not null default 7", false),
        (
            "with a default for each row",
            "alter table large add column id uuid default gen_random_uuid()",
            true,
        ),
    ] {
        let (before, begun) = (file().await?, Instant::now());
        sqlx::query(add).execute(pool).await?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let seen = file().await? != before;
        lab.check_eq(format!("a new column {name}: the table is rewritten"), is_rewritten, seen);
        lab.figure(format!("a new column {name}"), ms, "ms");
        took.push(ms);
    }
    lab.figure(
        "a new column with a default for each row ÷ with one default",
        took[1] / took[0],
        "",
    );
    Ok(())
}
