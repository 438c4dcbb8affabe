//! What if only some rows are asked for, or not the column itself?

use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, text};
use crate::index::{Column, Condition, Expression, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "partial-and-expression",
        "A partial index on the one row of a hundred that is asked for has a hundredth of the entries, and serves only queries \
         with its condition; lower(email) needs an index of its own",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: "if let Some(condition) = self.condition {",
        with: "if let Some(condition) = self.condition.filter(|_| false) {",
        check: "entries of the partial index",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let full = Index::on(&[Column::CreatedAt]);
    let partial = Index { condition: Some(Condition::Blocked), ..full.clone() };
    fixture.build("idx_full", &full).await?;
    let size = fixture.pages("idx_full").await?;
    fixture.drop("idx_full").await?;
    fixture.build("idx_partial", &partial).await?;
    let small = fixture.pages("idx_partial").await?;
    let entries = "select reltuples::bigint from pg_class where relname = 'idx_partial'";
    let entries = fixture.number(entries).await?;
    lab.check_eq("entries of the partial index", params.rows / 100, entries);
    lab.figure("pages: the whole index ÷ the partial one", size as f64 / small as f64, "");
    let blocked = fixture.run("blocked_lately", &[]).await?;
    lab.check(
        "the last twenty who were blocked: pages",
        "at most 40",
        blocked.pages(),
        blocked.pages() <= 40.0,
    );
    let other =
        "select id, name from users where status = 'active' order by created_at desc limit 20";
    let other = fixture.explain("set local enable_seqscan = off", "buffers", other).await?;
    lab.check_eq("a query with another condition can use it", false, other.reads("idx_partial"));

    lab.progress(1, 2, "lower(email)");
    let wanted = [text("User777@example.org")];
    fixture.build("idx_email", &Index::on(&[Column::Email])).await?;
    let sql = "select id, name from users where lower(email) = 'user777@example.org'";
    let without = fixture.explain("set local enable_seqscan = off", "buffers", sql).await?;
    lab.check_eq("lower(email) can be found by idx_email", false, without.reads("idx_email"));
    fixture
        .build("idx_lower", &Index { expression: Some(Expression::LowerEmail), ..Index::default() })
        .await?;
    fixture.sql("analyze users").await?;
    let with = fixture.run("by_email_in_any_case", &wanted).await?;
    lab.check(
        "lower(email) by an index of its own: pages",
        "at most 6",
        with.pages(),
        with.pages() <= 6.0,
    );
    lab.figure(
        "lower(email): pages without ÷ with an index of its own",
        without.pages() / with.pages(),
        "",
    );
    Ok(())
}
