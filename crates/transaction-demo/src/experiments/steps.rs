//! What did each statement of an interleaving come to?

/// A statement of a session.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The number of its session, from 0.
    pub session: usize,
    /// What it says.
    pub sql: &'static str,
    /// So that what came of it can be asked for.
    name: &'static str,
}

/// A statement of the first transaction.
pub const fn t1(sql: &'static str) -> Step {
    Step { session: 0, sql, name: "" }
}

/// A statement of the second.
pub const fn t2(sql: &'static str) -> Step {
    Step { session: 1, sql, name: "" }
}

/// A statement of the third.
pub const fn t3(sql: &'static str) -> Step {
    Step { session: 2, sql, name: "" }
}

impl Step {
    /// Names it.
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// What came of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended, with these rows and so many written.
    Done(Vec<Vec<String>>, u64),
    /// It failed with this SQLSTATE, and its transaction with it.
    Failed(String),
    /// Its transaction had failed before.
    NotSent,
}

/// A statement that was sent, and what came of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which it is.
    pub step: Step,
    /// Whether it had to wait for another transaction.
    pub waited: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// A whole interleaving.
#[derive(Clone, Debug)]
pub struct Trace(pub Vec<Seen>);

impl Trace {
    fn named(&self, name: &str) -> Option<&Outcome> {
        self.0.iter().find(|seen| seen.step.name == name).map(|seen| &seen.outcome)
    }

    /// The first value that the statement of this name read, if there was one.
    pub fn value(&self, name: &str) -> Option<i64> {
        match self.named(name) {
            Some(Outcome::Done(rows, _)) => rows.first()?.first()?.parse().ok(),
            _ => None,
        }
    }

    /// Whether every statement of this session succeeded, its `commit` too.
    pub fn committed(&self, session: usize) -> bool {
        let mut of_session = self.0.iter().filter(|seen| seen.step.session == session);
        of_session.all(|seen| matches!(seen.outcome, Outcome::Done(..)))
    }

    /// The SQLSTATEs of statements that failed, in the order of the statements.
    pub fn failures(&self) -> Vec<&str> {
        let codes = self.0.iter().filter_map(|seen| match &seen.outcome {
            Outcome::Failed(code) => Some(code.as_str()),
            _ => None,
        });
        codes.collect()
    }

    /// How many had to wait.
    pub fn waits(&self) -> usize {
        self.0.iter().filter(|seen| seen.waited).count()
    }

    /// What came of each statement, in a few words.
    pub fn words(&self) -> Vec<String> {
        let words = |seen: &Seen| {
            let outcome = match &seen.outcome {
                Outcome::Done(rows, _) if !rows.is_empty() => {
                    let rows: Vec<_> = rows.iter().map(|row| row.join(" → ")).collect();
                    rows.join(", ")
                }
                Outcome::Done(_, written) if seen.step.sql.starts_with("select") => {
                    debug_assert_eq!(*written, 0);
                    "no rows".to_owned()
                }
                Outcome::Done(_, written) if seen.step.sql.starts_with("update") => {
                    format!("{written} updated")
                }
                Outcome::Done(..) => "ok".to_owned(),
                Outcome::Failed(code) => format!("FAILS {code}"),
                Outcome::NotSent => "—".to_owned(),
            };
            if seen.waited { format!("waits, then {outcome}") } else { outcome }
        };
        self.0.iter().map(words).collect()
    }
}

/// The statements as rows of a table, each in the column of its session.
pub fn columns(steps: &[Step], sessions: usize) -> Vec<Vec<String>> {
    let row = |step: &Step| {
        let mut row = vec![String::new(); sessions];
        step.sql.clone_into(&mut row[step.session]);
        row
    };
    steps.iter().map(row).collect()
}
