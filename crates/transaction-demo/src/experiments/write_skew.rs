//! May two doctors go off call at once? Each sees that the other stays.

use std::sync::Arc;

use lab::{Experiment, Lab, Sabotage};
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    sync::{Barrier, Mutex},
    task::JoinSet,
};

use super::{
    sessions::Stage,
    steps::{Step, columns, t1, t2},
};
use crate::{
    database::{Isolation, Work, attempt},
    error::Error,
    retry::retry,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Nights on which two doctors try it at the same moment
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    nights: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "write-skew",
        "Two doctors go off call at once: permitted by snapshot isolation; refused by serializable, and by a \
         lock on a common row, which at repeatable read has to be written to and not only locked",
        &["--nights", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: r#""begin isolation level serializable""#,
        with: r#""begin isolation level repeatable read""#,
        check: "on call afterwards, serializable",
    })
}

const LOOK: &str = "select count(*) from doctors where on_call";
const LOCK: &str = "select id from night where id = 1 for update";
const MARK: &str = "update night set changes = changes + 1 where id = 1";
/// What the hospital's program does after its look, in one statement so that it can be shown in one line.
const ADA_LEAVES: &str = "update doctors set on_call = false where name = 'Ada' \
                          and 2 <= (select count(*) from doctors where on_call)";
const BOB_LEAVES: &str = "update doctors set on_call = false where name = 'Bob' \
                          and 2 <= (select count(*) from doctors where on_call)";

const PLAIN: &[Step] =
    &[t1(LOOK), t2(LOOK), t1(ADA_LEAVES), t2(BOB_LEAVES), t1("commit"), t2("commit")];
const LOCKED: &[Step] =
    &[t1(LOCK), t2(LOCK), t1(ADA_LEAVES), t1("commit"), t2(BOB_LEAVES), t2("commit")];
const MARKED: &[Step] =
    &[t1(MARK), t2(MARK), t1(ADA_LEAVES), t1("commit"), t2(BOB_LEAVES), t2("commit")];

/// A way to keep one doctor on call.
struct Way {
    name: &'static str,
    level: Isolation,
    steps: &'static [Step],
    /// What is left on call.
    left: i64,
    /// How the second one is refused, if it is with an error.
    refused: &'static [&'static str],
}

const WAYS: [Way; 5] = [
    Way {
        name: "repeatable read (snapshot isolation)",
        level: Isolation::RepeatableRead,
        steps: PLAIN,
        left: 0,
        refused: &[],
    },
    Way {
        name: "serializable",
        level: Isolation::Serializable,
        steps: PLAIN,
        left: 1,
        refused: &["40001"],
    },
    Way {
        name: "read committed, the night's row locked first",
        level: Isolation::ReadCommitted,
        steps: LOCKED,
        left: 1,
        refused: &[],
    },
    Way {
        // The second one's snapshot is from before its wait: it has the lock, and looks at the past.
        name: "repeatable read, the night's row locked first",
        level: Isolation::RepeatableRead,
        steps: LOCKED,
        left: 0,
        refused: &[],
    },
    Way {
        name: "repeatable read, the night's row written first",
        level: Isolation::RepeatableRead,
        steps: MARKED,
        left: 1,
        refused: &["40001"],
    },
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut admin = PgConnection::connect(database.url()).await?;
    admin.execute("create table doctors (name text primary key, on_call boolean not null)").await?;
    admin.execute("create table night (id int primary key, changes int not null)").await?;
    admin.execute("insert into night values (1, 0)").await?;
    let mut stage = Stage::open(database.url()).await?;
    for way in &WAYS {
        both_on_call(&mut admin).await?;
        let trace = stage.play(way.level.begin(), way.steps).await?;
        let rows = columns(way.steps, 2).into_iter().zip(trace.words());
        let rows = rows.map(|(row, word)| [row, vec![word]].concat()).collect();
        lab.table(way.name, &["Ada", "Bob", "what came of it"], rows);
        let seen = format!("{}, refused with {:?}", on_call(&mut admin).await?, trace.failures());
        let expected = format!("{}, refused with {:?}", way.left, way.refused);
        lab.check_eq(format!("on call afterwards, {}", way.name), expected, seen);
    }
    for way in &WAYS {
        let (mut empty, mut failed) = (0, 0);
        let doctors = [doctor(database.url()).await?, doctor(database.url()).await?];
        for night in 0..params.nights {
            lab.progress(night.into(), params.nights.into(), format!("nights: {}", way.name));
            both_on_call(&mut admin).await?;
            failed += at_once(&doctors, way).await?;
            empty += u32::from(on_call(&mut admin).await? == 0);
        }
        let name = format!("{} nights without a doctor, {}", params.nights, way.name);
        lab.figure(&name, empty.into(), "");
        if way.left > 0 {
            lab.check_eq(name, 0, empty);
            lab.check_eq(format!("doctors without an answer, {}", way.name), 0, failed);
        }
    }
    Ok(())
}

async fn both_on_call(admin: &mut PgConnection) -> anyhow::Result<()> {
    let all = "insert into doctors values ('Ada', true), ('Bob', true) \
               on conflict (name) do update set on_call = true";
    admin.execute(all).await?;
    Ok(())
}

async fn on_call(admin: &mut PgConnection) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(LOOK).fetch_one(admin).await?)
}

/// A doctor's connection. Only its doctor uses it: the lock is for the attempts, which follow each other.
type Doctor = Arc<Mutex<PgConnection>>;

async fn doctor(url: &str) -> anyhow::Result<Doctor> {
    Ok(Arc::new(Mutex::new(PgConnection::connect(url).await?)))
}

/// Looks, or locks, and leaves.
struct Leave(&'static str, &'static str);

impl Work for Leave {
    type Answer = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::raw_sql(self.0).execute(&mut *connection).await?;
        sqlx::raw_sql(self.1).execute(connection).await?;
        Ok(())
    }
}

/// Both try it at the same moment, as programs that retry what is refused. Returns how many got no answer.
async fn at_once(doctors: &[Doctor; 2], way: &Way) -> anyhow::Result<u32> {
    let (mut trying, start) = (JoinSet::new(), Arc::new(Barrier::new(2)));
    let (level, first) = (way.level, way.steps[0]);
    for (doctor, leave) in doctors.iter().zip([ADA_LEAVES, BOB_LEAVES]) {
        let (doctor, start) = (doctor.clone(), start.clone());
        trying.spawn(async move {
            start.wait().await;
            let leave = retry(|| async {
                attempt(&mut *doctor.lock().await, level, &Leave(first.sql, leave)).await?
            });
            leave.await
        });
    }
    let outcomes = trying.join_all().await;
    Ok(outcomes.iter().map(|outcome| u32::from(outcome.is_err())).sum())
}
