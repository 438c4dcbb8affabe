//! Does LIMIT make a query fast? It stops early, if the rows come in the right order and are the right ones.

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::{found, pages};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "limit",
        "LIMIT with an index in its order stops after a few pages. If the wanted rows are at the other end, the planner walks through \
         all others, also beside an index on the filter. An offset reads all that it skips; a keyset does not",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "where id > 15000 order by id limit 20",
        with: "where id >= 15000 order by id limit 20",
        check: "what keyset does for deep-page",
    })
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
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
    deeper(&lab, &fixture, params.rows).await
}

const TITLE: &str = "Twenty rows, further and further down";
const AXES: (&str, &str) = ("rows skipped", "pages");

async fn deeper(lab: &Lab, fixture: &Fixture, events: i64) -> anyhow::Result<()> {
    let pages = |plan: &Value| {
        let number = |name: &str| plan["Plan"][name].as_f64().unwrap_or_default();
        number("Shared Hit Blocks") + number("Shared Read Blocks")
    };
    let (mut offsets, mut keysets) = (Vec::new(), Vec::new());
    for tenths in [0, 1, 3, 6, 9] {
        let skipped = events * tenths / 10;
        let offset = format!("select id, kind from events order by id limit 20 offset {skipped}");
        let keyset =
            format!("select id, kind from events where id > {skipped} order by id limit 20");
        offsets.push(pages(&fixture.explain("", &offset).await?));
        keysets.push(pages(&fixture.explain("", &keyset).await?));
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
