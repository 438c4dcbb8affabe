//! Is a join faster than a subquery? It depends on which subquery, and the join may be another question.

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{Rows, fixture::Fixture, try_out};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "subqueries",
        "IN, EXISTS and a join on a unique key have the same plan; a join on another column returns other rows. NOT IN is slow if its \
         list does not fit into memory, and returns nothing if there is a NULL in it. A correlated subquery in the select list is the \
         one to rewrite; a CTE that is used once changes nothing",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/tally.rs",
        replace: "(self.rows, self.digest) == (other.rows, other.digest)",
        with: "self.rows.min(1) == other.rows.min(1)",
        check: "what join does for buyers",
    })
}

/// The nodes of a plan, each with its kind of join and its table.
fn shape(node: &Value) -> String {
    let field = |name: &str| node[name].as_str().unwrap_or_default();
    let own = [field("Join Type"), field("Node Type"), field("Relation Name")].join(" ");
    let below = node["Plans"].as_array().into_iter().flatten().map(shape);
    [own.trim().to_owned()].into_iter().chain(below).collect::<Vec<_>>().join(", ")
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("of-name", "exists", "does_nothing"),
        ("of-name", "join", "does_nothing"),
        ("buyers", "exists", "does_nothing"),
        ("buyers", "join", "changes_the_answer"),
        ("buyers", "join-distinct", "does_nothing"),
        ("never-seen", "not-exists", "helps"),
        ("never-seen", "left-join", "helps"),
        ("never-seen", "without-null-test", "changes_the_answer"),
        ("count-per-user", "join", "helps"),
        ("count-per-user", "cte", "does_nothing"),
        ("count-per-user", "index-user", "helps"),
    ];
    let trials = try_out(&lab, &client, "Subqueries, rewritten", &remedies).await?;
    let rows = |run: &Value| run["rows"].as_f64().unwrap_or(-1.0);
    for (at, what) in [
        (0, "EXISTS in place of IN, on a unique key"),
        (1, "a join in place of IN, on a unique key"),
        (2, "EXISTS in place of IN, on another column"),
        (9, "a CTE around the query"),
    ] {
        let shape = |run: &Value| shape(&run["plan"][0]["Plan"]);
        let (before, after) = (shape(&trials[at].before), shape(&trials[at].after));
        lab.check_eq(format!("{what}: the plan"), before, after);
    }
    let (right, joined) = (rows(&trials[3].before), rows(&trials[3].after));
    let check = "rows of the join, where IN returns each user once";
    lab.check(check, format!("more than {right}"), joined, joined > right);
    lab.check_eq("rows of NOT IN with a NULL in its list", 0.0, rows(&trials[7].after));
    let ratio = |at: usize| {
        let (before, after): (f64, f64) = trials[at].pages();
        before / after
    };
    lab.figure("pages: NOT IN ÷ NOT EXISTS", ratio(5), "");
    lab.figure("pages: a count for each of thirty users ÷ one join", ratio(8), "");
    let (join, index) = (trials[8].pages().1, trials[10].pages().1);
    lab.figure("pages: one join ÷ a count for each, with an index", join / index, "");
    let time = |run: &Value| run["milliseconds"].as_f64().unwrap_or(f64::NAN);
    let slower = time(&trials[5].before) / time(&trials[5].after);
    lab.figure("time: NOT IN ÷ NOT EXISTS", slower, "");
    Ok(())
}
