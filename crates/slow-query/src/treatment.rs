//! Did the remedy help? Two runs, before and after, and a verdict on the pages that they read.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::finding::{Finding, findings};
use crate::{plan::Plan, tally::Tally, waits::Waits};

/// Bytes of a page.
const PAGE: u64 = 8_192;

/// What one run of a query has shown.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// Nothing, if the query waited for a lock until we gave up.
    pub plan: Option<Plan>,
    /// The plan as PostgreSQL wrote it.
    pub raw: Value,
    /// What it waited for.
    pub waits: Waits,
    /// Its rows.
    pub tally: Tally,
}

impl Examination {
    /// What is wrong, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        findings(&self.plan.clone().unwrap_or_default(), &self.waits)
    }

    /// Pages of tables, of indexes and of temporary files, and those that the result would fill on its way to the caller. A plan
    /// does not count the latter: `explain` throws the rows away.
    pub fn pages(&self) -> f64 {
        let read = self.plan.as_ref().map_or(0.0, |plan| plan.root.pages());
        read + (self.tally.bytes / PAGE) as f64
    }

    /// As the client reads it.
    pub fn shown(&self) -> Value {
        let mut shown = json!({ "waits": self.waits, "plan": self.raw });
        if let Some(plan) = &self.plan {
            let (hit, read) = plan.root.shared();
            shown["milliseconds"] = plan.execution.into();
            shown["pages"] = plan.root.pages().into();
            shown["pages_sent"] = (self.tally.bytes / PAGE).into();
            shown["buffers"] = json!({ "hit": hit, "read": read, "temp": plan.root.temp() });
            shown["rows"] = self.tally.rows.into();
            shown["result"] = json!(self.tally);
        }
        shown
    }
}

/// What a remedy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Half of the pages at most, read and sent, or an end of the waiting.
    Helps,
    /// Anything between.
    DoesNothing,
    /// Twice the pages at least.
    Harms,
    /// Other rows: whatever else it does, it is no remedy.
    ChangesTheAnswer,
}

// ANCHOR: effect
/// The verdict. It compares pages and not milliseconds, since pages are the same on each machine, at each hour. First of all the
/// rows must be the same: a query that returns nothing is the fastest one.
pub fn effect(before: &Examination, after: &Examination) -> Effect {
    if !before.tally.is_same(&after.tally) {
        return Effect::ChangesTheAnswer;
    }
    match (before.waits.mostly(), after.waits.mostly()) {
        (true, false) => return Effect::Helps,
        (false, true) => return Effect::Harms,
        _ => {}
    }
    let (before, after) = (before.pages(), after.pages());
    if after * 2.0 <= before {
        Effect::Helps
    } else if after >= before * 2.0 {
        Effect::Harms
    } else {
        Effect::DoesNothing
    }
}
// ANCHOR_END: effect

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Pasted, waits::Blocker};

    fn run(pages: f64, row: &[u8], waiting: bool) -> Examination {
        let plan = json!([{
            "Plan": { "Node Type": "Result", "Actual Rows": 1, "Actual Loops": 1, "Shared Hit Blocks": pages },
        }]);
        let Pasted(plan) = serde_json::from_value(plan).unwrap();
        let mut run = Examination { plan: Some(plan), ..Examination::default() };
        run.tally.add(true, [Some(row)].into_iter());
        for _ in 0..3 {
            run.waits.note(waiting.then_some(Blocker { pid: 1, state: None, seconds: None }));
        }
        run
    }

    #[test]
    fn a_remedy_is_judged_by_rows_then_by_waiting_then_by_pages() {
        let before = run(100.0, b"a", false);
        for (after, verdict) in [
            (run(50.0, b"a", false), Effect::Helps),
            (run(51.0, b"a", false), Effect::DoesNothing),
            (run(199.0, b"a", false), Effect::DoesNothing),
            (run(200.0, b"a", false), Effect::Harms),
            (run(1.0, b"a", true), Effect::Harms),
            (run(1.0, b"b", false), Effect::ChangesTheAnswer),
        ] {
            assert_eq!(effect(&before, &after), verdict);
        }
        let waiting = run(100.0, b"a", true);
        assert_eq!(effect(&waiting, &before), Effect::Helps);
        assert_eq!(effect(&waiting, &waiting), Effect::DoesNothing);
    }
}
