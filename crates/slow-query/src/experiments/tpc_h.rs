//! Which three changes help all queries of a benchmark most?

mod bench;
mod data;
mod queries;

use lab::{Experiment, Lab, Sabotage, Target};

use super::fixture::Fixture;
use crate::tally::Tally;
use bench::{Bench, Run, total};
use queries::{CHANGES, Change, How, QUERIES, WRONG};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Size of the data. 1 is about a gigabyte, with six million line items
    #[arg(long, default_value = "0.02", value_parser = ["0.01", "0.02", "0.05", "0.1"])]
    scale: String,
    /// Milliseconds after which a query is ended. It then counts with this time, and with no pages
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    limit_ms: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "tpc-h",
        "With primary keys only, two of TPC-H's 22 queries read most of the pages. One index on line items ends that. The second and the \
         third best change save few more pages, and with all three each query returns the same rows",
        &["--scale", "0.01"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tally.rs",
        replace: "(self.rows, self.digest) == (other.rows, other.digest)",
        with: "self.rows == other.rows",
        check: "rows of query 4 with a join in place of EXISTS, beside those before",
    })
    .sabotage(Sabotage {
        file: "src/plan.rs",
        replace: "self.hit + self.read + self.temp()",
        with: "self.read + self.temp()",
        check: "index on the part and supplier of a line item, alone: pages of all queries ÷ before",
    })
}

/// How many changes are kept.
const KEPT: usize = 3;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 0).await?;
    let mut connection = fixture.connect().await?;
    lab.progress(0, 5, "the tables");
    data::load(&mut connection, params.scale.parse()?).await?;
    let mut bench = Bench::new(connection, &params.scale, params.limit_ms);
    lab.progress(1, 5, "all queries, with primary keys only");
    let before = bench.measure(&[]).await?;
    // A query that was ended has no pages, so then the checks of pages say nothing.
    lab.check_eq("queries that the time limit ends, with primary keys only", 0, ended(&before));
    let rows = bench.rows(&[], 1..=QUERIES.len()).await?;
    let (kept, after) = best(&lab, &mut bench, &before).await?;
    let names: Vec<_> = kept.iter().map(|change| change.name).collect();
    lab.text(format!("The three changes that help most together: {}", names.join("; ")));
    let same = same_rows(&lab, &mut bench, &kept, &rows).await?;
    compare(&lab, &before, &after, &told(&rows, &same));
    Ok(())
}

/// Whether each query returns the same rows as before; nothing if one of them was ended.
type Same = Vec<Option<bool>>;

fn is_same(before: Option<&Tally>, after: Option<&Tally>) -> Option<bool> {
    Some(before?.is_same(after?))
}

const fn words(same: Option<bool>) -> &'static str {
    match same {
        Some(true) => "the same",
        Some(false) => "other rows",
        None => "unknown",
    }
}

/// How many rows each query returned before, and whether they are the same after: two empty results say little.
fn told(before: &[Option<Tally>], same: &[Option<bool>]) -> Vec<String> {
    let mut told = Vec::new();
    for (tally, same) in before.iter().zip(same) {
        let rows = tally.as_ref().map(|tally| tally.rows.to_string()).unwrap_or_default();
        told.push(format!("{rows} {}", words(*same)).trim().to_owned());
    }
    told
}

/// Compares the rows of all queries after the three changes with those before, and those of each rewrite.
async fn same_rows(
    lab: &Lab,
    bench: &mut Bench,
    kept: &[Change],
    before: &[Option<Tally>],
) -> anyhow::Result<Same> {
    let after = bench.rows(kept, 1..=QUERIES.len()).await?;
    let pairs = before.iter().zip(&after);
    let same: Same =
        pairs.map(|(before, after)| is_same(before.as_ref(), after.as_ref())).collect();
    let compared = same.iter().flatten().count();
    if compared < QUERIES.len() {
        lab.text(format!("{} queries reached the time limit", QUERIES.len() - compared));
    }
    let alike = same.iter().flatten().filter(|same| **same).count();
    // A query that was ended has not been compared, so it is not among them.
    lab.check_eq("queries with the same rows before and after", QUERIES.len(), alike);
    for change in CHANGES.iter().chain([&WRONG]) {
        let How::Rewrite(number, _) = change.how else { continue };
        let after = bench.rows(&[*change], number..=number).await?;
        let seen = words(is_same(before[number - 1].as_ref(), after[0].as_ref()));
        let expected = words(Some(change.name != WRONG.name));
        lab.check_eq(format!("rows of {}, beside those before", change.name), expected, seen);
    }
    Ok(same)
}

/// Before against after: each query, and all.
fn compare(lab: &Lab, before: &[Run], after: &[Run], rows: &[String]) {
    let mut table = Vec::new();
    for (n, query) in QUERIES.iter().enumerate() {
        let key = if before[n].by_key { "yes" } else { "no" };
        let mut row = vec![query.name.to_owned(), key.to_owned()];
        for run in [before[n], after[n]] {
            let pages = if run.ended { "ended".to_owned() } else { run.pages.to_string() };
            row.extend([pages, format!("{:.1}", run.milliseconds)]);
        }
        row.push(rows[n].clone());
        table.push(row);
    }
    let columns = ["query", "uses a primary key", "pages", "ms", "pages after", "ms after", "rows"];
    lab.table("All queries, before and after the three changes", &columns, table);
    let by_key = before.iter().filter(|run| run.by_key).count();
    lab.figure("queries that use the index of a primary key, of 22", by_key as f64, "");
    let ((pages, time), (pages_after, time_after)) = (total(before), total(after));
    let mut worst: Vec<_> = before.iter().zip(after).zip(&QUERIES).collect();
    worst.sort_by(|((one, _), _), ((other, _), _)| other.pages.total_cmp(&one.pages));
    let others = worst.drain(2..).map(|(runs, _)| runs);
    let (others, others_after): (Vec<_>, Vec<_>) = others.unzip();
    let names: Vec<_> = worst.iter().map(|(_, query)| query.name).collect();
    lab.text(format!("The two queries that read most before: {}", names.join("; ")));
    let share = 1.0 - total(others.iter().copied()).0 / pages;
    lab.check("pages of the two worst queries, of all before", "at least 0.5", share, share >= 0.5);
    let name = "time of the other twenty: after three changes ÷ before";
    lab.figure(name, total(others_after).1 / total(others).1, "");
    let name = "pages of all queries: after three changes ÷ before";
    let ratio = pages_after / pages;
    lab.check(name, "at most 0.35", ratio, ratio <= 0.35);
    lab.figure(name, ratio, "");
    let name = "time of all queries: after three changes ÷ before";
    lab.figure_with_target(name, time_after / time, "", Target::AtMost(0.25));
    lab.figure("time of all queries before", time / 1_000.0, "s");
}

/// How many queries the time limit ended.
fn ended(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.ended).count()
}

/// The smaller, the better. A query that was ended has no pages, so their sum alone would be small where it is worst.
fn rank(runs: &[Run]) -> (usize, f64) {
    (ended(runs), total(runs).0)
}

/// Tries each change alone. Then keeps the best one, and tries the others beside it, until three are kept: by their pages, since
/// times differ from run to run.
async fn best(
    lab: &Lab,
    bench: &mut Bench,
    before: &[Run],
) -> anyhow::Result<(Vec<Change>, Vec<Run>)> {
    let (pages, time) = total(before);
    let of = |runs: &[Run]| {
        let (now, ms) = total(runs);
        [now / pages, ms / time].map(|ratio| format!("{ratio:.3}"))
    };
    let (mut kept, mut after) = (Vec::<Change>::new(), before.to_vec());
    let (mut alone, mut steps, mut idle) = (Vec::new(), Vec::new(), 0);
    let (mut others, mut first) = (CHANGES.to_vec(), None);
    while kept.len() < KEPT {
        let mut found: Option<(usize, Vec<Run>)> = None;
        for (n, change) in others.iter().enumerate() {
            lab.progress(kept.len() as u64, KEPT as u64, change.name);
            kept.push(*change);
            let runs = bench.measure(&kept).await?;
            kept.pop();
            if kept.is_empty() {
                let mut row = vec![change.name.to_owned()];
                row.extend(of(&runs));
                let better = |(before, after): &(&Run, &Run)| after.pages * 2.0 <= before.pages;
                let worse = |(before, after): &(&Run, &Run)| after.pages >= before.pages * 2.0;
                row.push(numbers(before, &runs, better));
                row.push(numbers(before, &runs, worse));
                alone.push(row);
                let ratio = total(&runs).0 / pages;
                idle += u32::from(ratio > 0.9);
                if change.name == CHANGES[0].name {
                    let check = format!("{}, alone: pages of all queries ÷ before", change.name);
                    lab.check(check, "at most 0.4", ratio, ratio <= 0.4);
                    let name = format!("{}, alone: time of all queries ÷ before", change.name);
                    lab.figure(name, total(&runs).1 / time, "");
                }
            }
            if found.as_ref().is_none_or(|(_, best)| rank(&runs) < rank(best)) {
                found = Some((n, runs));
            }
        }
        let Some((n, runs)) = found else { break };
        let mut row = vec![others[n].name.to_owned()];
        row.extend(of(&runs));
        steps.push(row);
        kept.push(others.remove(n));
        first.get_or_insert(total(&runs).0);
        after = runs;
    }
    let more = (first.unwrap_or(f64::NAN) - total(&after).0) / pages;
    let check = "pages that the second and the third change save, of all before";
    lab.check(check, "at most 0.1", more, more <= 0.1);
    let name = "changes that save less than a tenth of the pages alone, of ten";
    lab.figure(name, f64::from(idle), "");
    let columns = [
        "change",
        "pages of all ÷ before",
        "time of all ÷ before",
        "half the pages or fewer",
        "twice the pages or more",
    ];
    lab.table("Each change alone", &columns, alone);
    lab.table("The best one, the best beside it, and the best beside both", &columns[..3], steps);
    Ok((kept, after))
}

/// The numbers of the queries for which this holds.
fn numbers(before: &[Run], after: &[Run], holds: impl Fn(&(&Run, &Run)) -> bool) -> String {
    let pairs = before.iter().zip(after).enumerate();
    let numbers = pairs.filter(|(_, pair)| holds(pair)).map(|(n, _)| (n + 1).to_string());
    let numbers: Vec<_> = numbers.collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}
