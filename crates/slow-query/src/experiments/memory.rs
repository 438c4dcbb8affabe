//! What happens to a sort that does not fit into memory, and what does more memory cost?

use lab::{Experiment, Lab, Sabotage};

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::found;

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "memory",
        "A sort that does not fit into work_mem writes its rows to temporary files and reads them again. More work_mem ends that; in \
         memory the same rows need more room than on disk, and each sort of each connection may take it",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "set local work_mem = '64MB'",
        with: "set local work_mem = '64kB'",
        check: "what more-memory does for big-sort",
    })
}

const TITLE: &str = "The same sort with more and more work_mem";
const AXES: (&str, &str) = ("work_mem, kB", "temporary pages");
const SORT: &str = "select id, url from events where id <= 20000 order by url, id";
/// Connections of a usual server.
const CONNECTIONS: f64 = 100.0;

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let first = found(&client.diagnose("big-sort").await?).into_iter().next().unwrap_or_default();
    lab.check_eq("the first finding for big-sort", "spills".to_owned(), first);
    let remedies =
        [("big-sort", "more-memory", "helps"), ("big-sort", "unsorted", "changes_the_answer")];
    try_out(&lab, &client, "A sort that spills", &remedies).await?;
    let (mut temps, mut spaces, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for kilobytes in [64, 256, 1_024, 4_096, 16_384] {
        let settings = format!("set local work_mem = '{kilobytes}kB'");
        let plan = fixture.explain(&settings, SORT).await?;
        let number = |name: &str| plan["Plan"][name].as_f64().unwrap_or_default();
        temps.push(number("Temp Written Blocks") + number("Temp Read Blocks"));
        times.push(number("Actual Total Time"));
        spaces.push((plan["Plan"]["Sort Space Type"] == "Disk", number("Sort Space Used")));
        lab.point(TITLE, AXES, "temporary pages", (f64::from(kilobytes), temps[temps.len() - 1]));
    }
    let (least, most) = (temps[0], temps[temps.len() - 1]);
    lab.check("temporary pages with 64 kB", "more than 100", least, least > 100.0);
    lab.check_eq("temporary pages with 16 MB", 0.0, most);
    let on_disk = spaces.iter().find(|(disk, _)| *disk).map_or(f64::NAN, |(_, space)| *space);
    let in_memory = spaces.iter().rfind(|(disk, _)| !disk).map_or(f64::NAN, |(_, space)| *space);
    let check = "room for the rows in memory ÷ on disk";
    let ratio = in_memory / on_disk;
    lab.check(check, "more than 1", ratio, ratio > 1.0);
    let megabytes = in_memory * CONNECTIONS / 1_024.0;
    let slower = times[0] / times[times.len() - 1];
    lab.figure("time of the sort: with 64 kB ÷ with 16 MB, temporary files in memory", slower, "");
    lab.figure("one such sort on each of a hundred connections", megabytes, "MiB");
    Ok(())
}
