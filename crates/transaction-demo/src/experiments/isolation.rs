//! What does each isolation level permit? The anomalies of Adya's thesis, as the Hermitage tests have them, played
//! live.

use lab::{Experiment, Lab};
use sqlx::{Connection, Executor, PgConnection};

use super::sessions::{Stage, Step, Trace, columns, t1, t2, t3};
use crate::database::Isolation;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Which anomaly to play
    #[arg(long, value_enum, default_value_t = Which::All)]
    anomaly: Which,
    /// Times that each is played: the same must come of it each time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    All,
    G0,
    G1a,
    G1b,
    G1c,
    Otv,
    Pmp,
    P4,
    GSingle,
    G2Item,
    G2,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "isolation",
        "Read committed permits PMP, P4, G-single, G2-item and G2, and prevents G0, G1a, G1b, G1c and OTV; \
         repeatable read permits only G2-item and G2; serializable permits none",
        &["--rounds", "1"],
        run,
    )
}

const LEVELS: [(&str, Isolation); 3] = [
    ("read committed", Isolation::ReadCommitted),
    ("repeatable read", Isolation::RepeatableRead),
    ("serializable", Isolation::Serializable),
];

/// An anomaly, and the interleaving that shows it where it is permitted.
struct Anomaly {
    which: Which,
    name: &'static str,
    title: &'static str,
    sessions: usize,
    steps: &'static [Step],
    /// Whether it happened, from what was read and what is in the table afterwards.
    happened: fn(&Trace, &[i64]) -> bool,
    /// The Hermitage table for PostgreSQL, level by level.
    permitted: [bool; 3],
}

const PREVENTED: [bool; 3] = [false; 3];

/// The rows before each are 1 → 10 and 2 → 20. What is read is named after who reads it.
const ANOMALIES: [Anomaly; 10] = [
    Anomaly {
        which: Which::G0,
        name: "G0",
        title: "dirty write: two writers overtake each other",
        sessions: 2,
        steps: &[
            t1("update test set value = 11 where id = 1"),
            t2("update test set value = 12 where id = 1"),
            t1("update test set value = 21 where id = 2"),
            t1("commit"),
            t2("update test set value = 22 where id = 2"),
            t2("commit"),
        ],
        // One of them wins both rows, or it is a mixture.
        happened: |_, end| end != [11, 21] && end != [12, 22],
        permitted: PREVENTED,
    },
    Anomaly {
        which: Which::G1a,
        name: "G1a",
        title: "aborted read: what is seen never was",
        sessions: 2,
        steps: &[
            t1("update test set value = 101 where id = 1"),
            t2("select value from test where id = 1").named("first"),
            t1("rollback"),
            t2("select value from test where id = 1").named("second"),
            t2("commit"),
        ],
        happened: |trace, _| {
            trace.value("first") == Some(101) || trace.value("second") == Some(101)
        },
        permitted: PREVENTED,
    },
    Anomaly {
        which: Which::G1b,
        name: "G1b",
        title: "intermediate read: what is seen was never meant to last",
        sessions: 2,
        steps: &[
            t1("update test set value = 101 where id = 1"),
            t2("select value from test where id = 1").named("first"),
            t1("update test set value = 11 where id = 1"),
            t1("commit"),
            t2("select value from test where id = 1").named("second"),
            t2("commit"),
        ],
        happened: |trace, _| {
            trace.value("first") == Some(101) || trace.value("second") == Some(101)
        },
        permitted: PREVENTED,
    },
    Anomaly {
        which: Which::G1c,
        name: "G1c",
        title: "circular information flow: each sees what the other wrote",
        sessions: 2,
        steps: &[
            t1("update test set value = 11 where id = 1"),
            t2("update test set value = 22 where id = 2"),
            t1("select value from test where id = 2").named("one"),
            t2("select value from test where id = 1").named("two"),
            t1("commit"),
            t2("commit"),
        ],
        happened: |trace, _| trace.value("one") == Some(22) && trace.value("two") == Some(11),
        permitted: PREVENTED,
    },
    Anomaly {
        which: Which::Otv,
        name: "OTV",
        title: "observed transaction vanishes: seen in one row, overwritten in the other",
        sessions: 3,
        steps: &[
            t1("update test set value = 11 where id = 1"),
            t1("update test set value = 19 where id = 2"),
            t2("update test set value = 12 where id = 1"),
            t1("commit"),
            t3("select value from test where id = 1").named("before 1"),
            t2("update test set value = 18 where id = 2"),
            t3("select value from test where id = 2").named("before 2"),
            t2("commit"),
            t3("select value from test where id = 2").named("after 2"),
            t3("select value from test where id = 1").named("after 1"),
            t3("commit"),
        ],
        happened: |trace, _| {
            let mixed = |one, two| {
                let pair = (trace.value(one), trace.value(two));
                pair != (Some(11), Some(19)) && pair != (Some(12), Some(18))
            };
            mixed("before 1", "before 2") || mixed("after 1", "after 2")
        },
        permitted: PREVENTED,
    },
    Anomaly {
        which: Which::Pmp,
        name: "PMP",
        title: "predicate-many-preceders: rows appear between two looks (a phantom)",
        sessions: 2,
        steps: &[
            t1("select id, value from test where value = 30"),
            t2("insert into test values (3, 30)"),
            t2("commit"),
            t1("select id, value from test where value % 3 = 0").named("again"),
            t1("commit"),
        ],
        happened: |trace, _| trace.value("again") == Some(3),
        permitted: [true, false, false],
    },
    Anomaly {
        which: Which::P4,
        name: "P4",
        title: "lost update: both add 1 to what they read, and one 1 is gone",
        sessions: 2,
        steps: &[
            t1("select value from test where id = 1").named("one"),
            t2("select value from test where id = 1").named("two"),
            t1("update test set value = 11 where id = 1"),
            t2("update test set value = 11 where id = 1"),
            t1("commit"),
            t2("commit"),
        ],
        happened: |trace, end| trace.committed(0) && trace.committed(1) && end[0] == 11,
        permitted: [true, false, false],
    },
    Anomaly {
        which: Which::GSingle,
        name: "G-single",
        title: "read skew: one row from before another transaction, one from after it",
        sessions: 2,
        steps: &[
            t1("select value from test where id = 1").named("one"),
            t2("select value from test where id = 1"),
            t2("select value from test where id = 2"),
            t2("update test set value = 12 where id = 1"),
            t2("update test set value = 18 where id = 2"),
            t2("commit"),
            t1("select value from test where id = 2").named("two"),
            t1("commit"),
        ],
        happened: |trace, _| trace.value("one") == Some(10) && trace.value("two") == Some(18),
        permitted: [true, false, false],
    },
    Anomaly {
        which: Which::G2Item,
        name: "G2-item",
        title: "write skew: each changes what the other relied on",
        sessions: 2,
        steps: &[
            t1("select id, value from test where id in (1, 2)"),
            t2("select id, value from test where id in (1, 2)"),
            t1("update test set value = 11 where id = 1"),
            t2("update test set value = 21 where id = 2"),
            t1("commit"),
            t2("commit"),
        ],
        happened: |trace, end| trace.committed(0) && trace.committed(1) && end == [11, 21],
        permitted: [true, true, false],
    },
    Anomaly {
        which: Which::G2,
        name: "G2",
        title: "anti-dependency cycle: each adds a row that the other looked for in vain",
        sessions: 2,
        steps: &[
            t1("select id, value from test where value % 3 = 0"),
            t2("select id, value from test where value % 3 = 0"),
            t1("insert into test values (3, 30)"),
            t2("insert into test values (4, 42)"),
            t1("commit"),
            t2("commit"),
        ],
        happened: |trace, end| trace.committed(0) && trace.committed(1) && end == [10, 20, 30, 42],
        permitted: [true, true, false],
    },
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut admin = PgConnection::connect(database.url()).await?;
    admin.execute("create table test (id int primary key, value int not null)").await?;
    let mut stage = Stage::open(database.url()).await?;
    let wanted =
        |anomaly: &&Anomaly| params.anomaly == Which::All || params.anomaly == anomaly.which;
    let chosen: Vec<_> = ANOMALIES.iter().filter(wanted).collect();
    let (mut overview, mut waits, mut failures) = (Vec::new(), 0, 0);
    for (done, anomaly) in chosen.iter().enumerate() {
        lab.progress(done as u64, chosen.len() as u64, format!("{} at each level", anomaly.name));
        let (mut seen, mut outcomes) = (Vec::new(), Vec::new());
        for (_, level) in LEVELS {
            let (mut happened, mut words) = (0, Vec::new());
            for _ in 0..params.rounds {
                let (trace, end) = once(&mut stage, &mut admin, anomaly, level).await?;
                happened += u32::from((anomaly.happened)(&trace, &end));
                waits += trace.waits();
                failures += trace.failures().len();
                words = trace.words();
            }
            seen.push(verdict(happened, params.rounds));
            outcomes.push(words);
        }
        show(&lab, anomaly, &outcomes);
        let expected: Vec<_> =
            anomaly.permitted.map(|permitted| verdict(u32::from(permitted), 1)).into();
        let check = format!(
            "{}, {}: at read committed, repeatable read, serializable",
            anomaly.name, anomaly.title
        );
        lab.check_eq(check, expected.join(", "), seen.join(", "));
        overview.push([vec![anomaly.name.to_owned()], seen].concat());
    }
    let columns = ["anomaly", LEVELS[0].0, LEVELS[1].0, LEVELS[2].0];
    lab.table("What each level permits", &columns, overview);
    lab.figure("statements that had to wait", waits as f64, "");
    lab.figure("transactions that were refused", failures as f64, "");
    Ok(())
}

/// Plays it once, on two fresh rows; returns what was seen, and the values at the end.
async fn once(
    stage: &mut Stage,
    admin: &mut PgConnection,
    anomaly: &Anomaly,
    level: Isolation,
) -> anyhow::Result<(Trace, Vec<i64>)> {
    admin.execute("truncate test").await?;
    admin.execute("insert into test values (1, 10), (2, 20)").await?;
    let trace = stage.play(level.begin(), anomaly.steps).await?;
    let end = sqlx::query_scalar("select value::bigint from test order by id");
    Ok((trace, end.fetch_all(admin).await?))
}

fn verdict(happened: u32, rounds: u32) -> String {
    match happened {
        0 => "prevented".to_owned(),
        _ if happened == rounds => "permitted".to_owned(),
        _ => format!("permitted {happened} of {rounds} times"),
    }
}

/// The statements in a column for each transaction, and beside them what came of them at each level.
fn show(lab: &Lab, anomaly: &Anomaly, outcomes: &[Vec<String>]) {
    let mut rows = columns(anomaly.steps, anomaly.sessions);
    for words in outcomes {
        for (row, word) in rows.iter_mut().zip(words) {
            row.push(word.clone());
        }
    }
    let mut head = vec!["T1", "T2", "T3"];
    head.truncate(anomaly.sessions);
    head.extend(LEVELS.map(|(name, _)| name));
    lab.table(format!("{}, {}", anomaly.name, anomaly.title), &head, rows);
}
