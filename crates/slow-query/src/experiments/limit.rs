//! Does LIMIT make a query fast? It stops early, if the rows come in the right order and are the right ones.

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::{found, pages};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    #[command(flatten)]
    events: Rows,
    /// Rows of another table, which has only a key: a page is taken from its middle
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(100_000..=10_000_000))]
    narrow: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "limit",
        "LIMIT with an index in its order stops after a few pages. If the wanted rows are at the other end, the planner walks through \
         all others, also beside an index on the filter. An offset reads all that it skips; a keyset does not",
        &["--rows", "50000", "--narrow", "100000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "where id > 15000 order by id limit 20",
        with: "where id >= 15000 order by id limit 20",
        check: "what keyset does for deep-page",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.events.rows).await?;
    let (_child, client) = fixture.start().await?;
    let latest = client.diagnose("latest").await?;
    lab.check(
        "pages of the latest twenty events",
        "at most 10",
        pages(&latest),
        pages(&latest) <= 10.0,
    );
    let remedies = [
        ("rare-latest", "index-kind", "does_nothing"),
        ("rare-latest", "index-kind-created", "helps"),
        ("rare-latest", "index-imports", "helps"),
        ("rare-latest", "limit-10", "changes_the_answer"),
        ("deep-page", "keyset", "helps"),
        ("deep-page", "index-again", "does_nothing"),
    ];
    let trials = try_out(&lab, &client, "LIMIT and OFFSET", &remedies).await?;
    let rare = client.diagnose("rare-latest").await?;
    lab.check_eq(
        "the first finding for the latest imports",
        "discards".to_owned(),
        found(&rare).concat(),
    );
    let plan = trials[0].after["plan"].to_string();
    let walks = plan.contains("events_created_at");
    lab.check_eq(
        "beside an index on kind, the planner still walks through all events",
        true,
        walks,
    );
    let (walked, searched) = trials[1].pages();
    lab.figure(
        "pages of the latest imports: walked through ÷ by the right index",
        walked / searched,
        "",
    );
    deeper(&lab, &fixture, params.events.rows).await?;
    lab.progress(1, 2, format!("{} narrow rows", params.narrow));
    narrow(&lab, &fixture, params.narrow).await
}

/// Pages of tables and indexes.
fn read(plan: &Value) -> f64 {
    let number = |name: &str| plan["Plan"][name].as_f64().unwrap_or_default();
    number("Shared Hit Blocks") + number("Shared Read Blocks")
}

const TITLE: &str = "Twenty rows, further and further down";
const AXES: (&str, &str) = ("rows skipped", "pages");

async fn deeper(lab: &Lab, fixture: &Fixture, events: i64) -> anyhow::Result<()> {
    let (mut offsets, mut keysets) = (Vec::new(), Vec::new());
    for tenths in [0, 1, 3, 6, 9] {
        let skipped = events * tenths / 10;
        let offset = format!("select id, kind from events order by id limit 20 offset {skipped}");
        let keyset =
            format!("select id, kind from events where id > {skipped} order by id limit 20");
        offsets.push(read(&fixture.explain("", &offset).await?));
        keysets.push(read(&fixture.explain("", &keyset).await?));
        let at = skipped as f64;
        lab.point(TITLE, AXES, "offset", (at, offsets[offsets.len() - 1]));
        lab.point(TITLE, AXES, "keyset", (at, keysets[keysets.len() - 1]));
    }
    let deepest = (offsets[4], keysets[4]);
    let check = "pages of the deepest page: offset ÷ keyset";
    let ratio = deepest.0 / deepest.1;
    lab.check(check, "at least 50", ratio, ratio >= 50.0);
    let most = keysets.iter().copied().fold(0.0, f64::max);
    lab.check("most pages of a page by keyset, however deep", "at most 10", most, most <= 10.0);
    Ok(())
}

/// A page from the middle of a table with more rows than there are events. An index with the key is enough for it.
async fn narrow(lab: &Lab, fixture: &Fixture, rows: i64) -> anyhow::Result<()> {
    let fill = format!(
        "create unlogged table narrow as select id from generate_series(1::bigint, {rows}) as id;
        alter table narrow add primary key (id)"
    );
    fixture.sql(&fill).await?;
    fixture.sql("vacuum analyze narrow").await?;
    let half = rows / 2;
    let offset = format!("select id from narrow order by id limit 20 offset {half}");
    let keyset = format!("select id from narrow where id > {half} order by id limit 20");
    let (mut pages, mut times, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for sql in [offset, keyset] {
        let plan = fixture.explain("", &sql).await?;
        pages.push(read(&plan));
        times.push(plan["Execution Time"].as_f64().unwrap_or(f64::NAN));
        last.push(fixture.number(&format!("select max(id) from ({sql}) as page")).await?);
    }
    let check = "narrow rows: the last row of the page, by offset and by keyset";
    lab.check_eq(check, last[0], last[1]);
    let check = "narrow rows: pages of a page in the middle: offset ÷ keyset";
    let ratio = pages[0] / pages[1];
    lab.check(check, "at least 20", ratio, ratio >= 20.0);
    let figure = "narrow rows: time of a page in the middle: offset ÷ keyset";
    lab.figure(figure, times[0] / times[1], "");
    Ok(())
}
