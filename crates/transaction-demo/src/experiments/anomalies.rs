//! Which anomalies are there, and what shows each? From Adya's thesis, with the interleavings of the Hermitage tests.

use super::steps::{Step, Trace, t1, t2, t3};

/// One of them, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
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

/// An anomaly, and the interleaving that shows it where it is permitted.
pub struct Anomaly {
    /// Which it is.
    pub which: Which,
    /// As Adya calls it.
    pub name: &'static str,
    /// As everybody calls it, and what happens.
    pub title: &'static str,
    /// How many transactions it takes.
    pub sessions: usize,
    /// What they do.
    pub steps: &'static [Step],
    /// Whether it happened, from what was read and what is in the table afterwards.
    pub happened: fn(&Trace, &[i64]) -> bool,
    /// The Hermitage table for PostgreSQL, level by level.
    pub permitted: [bool; 3],
}

const PREVENTED: [bool; 3] = [false; 3];

/// The rows before each are 1 → 10 and 2 → 20. What is read is named after who reads it.
pub const ANOMALIES: [Anomaly; 10] = [
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
