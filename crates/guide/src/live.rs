//! How does an experiment come to stand on a page? Where the chapter names it: its claim, a form made from its
//! parameters, the command line, and its last result.

use std::sync::LazyLock;

use lab::{Answer, Experiment, Report, experiment::Param, report::escaped};
use practice::{exercise::Exercise, progress::Progress};
use regex::{Captures, Regex};

use crate::{
    element::{EXERCISES, EXPERIMENT, pattern},
    questions::{self, Level, QUESTIONS},
    render::{self, Verdict},
};

static PARAGRAPH: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"<p>\s*(<(?:live-experiment|exercise-list|guide-contents|guide-stack)[^>]*></[a-z-]*>)\s*</p>",
    )
});

/// Whether a page can run experiments, or only show what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Served by the guide.
    Live,
    /// Written down, for any web server.
    Static,
}

/// Fills in what depends on the moment: the experiments with their last results, and the contents.
pub fn fill(page: &str, answers: &[Answer], mode: Mode) -> String {
    // A paragraph must not stand round what is more than a line; mdBook puts one round each.
    let page = PARAGRAPH.replace_all(page, "$1");
    let page = EXPERIMENT.replace_all(&page, |found: &Captures| {
        let answer = answers.iter().find(|answer| answer.name == &found[1]);
        let experiment = answer.and_then(|answer| Some((answer, answer.experiment(&found[2])?)));
        experiment.map_or_else(
            || format!("<p>There is no experiment {} {}.</p>", &found[1], &found[2]),
            |(answer, experiment)| element(answer, experiment, mode),
        )
    });
    let page = EXERCISES.replace_all(&page, |found: &Captures| {
        let answer = answers.iter().find(|answer| answer.name == &found[1]);
        answer.map_or_else(
            || format!("<p>There is no answer {}.</p>", &found[1]),
            |answer| exercises(answer, mode),
        )
    });
    page.replace("<guide-contents></guide-contents>", &contents(answers))
        .replace("<guide-stack></guide-stack>", stack(mode))
}

/// The exercises of one answer, and how far the reader is with each.
fn exercises(answer: &Answer, mode: Mode) -> String {
    let workspace = practice::workspace();
    let read = || {
        let progress = match mode {
            Mode::Live => Progress::load(&workspace)?,
            Mode::Static => Progress::default(),
        };
        anyhow::Ok((Exercise::all(&workspace)?, progress))
    };
    let (exercises, progress) = match read() {
        Ok(read) => read,
        Err(error) => return format!("<p>{}</p>", escaped(&format!("{error:#}"))),
    };
    let of_answer = exercises.iter().filter(|exercise| exercise.key.answer == answer.name);
    let rows: String = of_answer
        .map(|exercise| {
            let state = progress.state(&exercise.key).word();
            format!(
                "<tr class=\"{state}\"><td>{}<br><code>cargo practice start {}</code></td>\
                 <td>{}</td><td>{state}</td></tr>",
                escaped(&exercise.front.title),
                escaped(&exercise.key.to_string()),
                escaped(&exercise.front.level),
            )
        })
        .collect();
    format!(
        "<exercise-list><div class=\"table-wrapper\"><table><thead><tr><th>Exercise</th><th>Takes</th>\
         <th>State</th></tr></thead><tbody>{rows}</tbody></table></div>{}</exercise-list>",
        own_program(answer),
    )
}

/// How to try a program of the reader's own.
fn own_program(answer: &Answer) -> String {
    format!(
        "<p>Or write the whole answer in your own language. This sends it what a client would, in {} cases, and says \
         of each what came, what the table of calls says and why it matters; more of them with <code>--load</code>, and \
         with <code>--restart-cmd</code> and the command that starts your program:</p><pre><code>cargo run -- \
         conform {} --target http://127.0.0.1:9000</code></pre>",
        answer.suite.cases.len(),
        answer.name,
    )
}

/// One experiment.
fn element(answer: &Answer, experiment: &Experiment, mode: Mode) -> String {
    let (of, name) = (answer.name, experiment.name);
    let form = match (mode, experiment.obstacle(answer)) {
        (Mode::Static, _) => String::new(),
        (Mode::Live, None) => form(experiment),
        (Mode::Live, Some(why)) => {
            format!("<p class=\"made-on\">It cannot run here: {}.</p>", escaped(&why))
        }
    };
    let last = lab::results::load(of, name).map_or_else(
        || "<p class=\"made-on\">Not run here yet.</p>".to_owned(),
        |(report, at)| render::report(&report, at.into()),
    );
    format!(
        "<live-experiment answer=\"{of}\" name=\"{name}\">\
         <h3 id=\"{of}-{name}\"><a class=\"header\" href=\"#{of}-{name}\">{name}</a></h3>\
         <p class=\"claim\">{claim}.</p>{form}\
         <p class=\"command\"><code>cargo run -p {of} -- experiment {name}</code></p>\
         <div class=\"result\">{last}</div>\
         </live-experiment>",
        claim = escaped(experiment.claim),
    )
}

fn form(experiment: &Experiment) -> String {
    let fields: String = experiment.params().iter().map(field).collect();
    // Shown only when the script is there to act on it.
    format!(
        "<form hidden><div class=\"fields\">{fields}</div>\
         <button class=\"run\">Run</button> <button class=\"stop\" type=\"button\" hidden>Stop</button> \
         <progress hidden></progress> <span class=\"status\" role=\"status\"></span></form>\
         <template>{}</template>",
        render::slots()
    )
}

fn field(param: &Param) -> String {
    let Param { name, help, default, number, choices } = param;
    let input = if choices.is_empty() {
        let kind = if *number { "type=\"number\" step=\"any\"" } else { "type=\"text\"" };
        format!("<input name=\"{name}\" {kind} value=\"{}\" required>", escaped(default))
    } else {
        let options: String = choices
            .iter()
            .map(|choice| {
                let selected = if choice == default { " selected" } else { "" };
                format!("<option{selected}>{}</option>", escaped(choice))
            })
            .collect();
        format!("<select name=\"{name}\">{options}</select>")
    };
    format!(
        "<label><span class=\"name\">{name}</span>{input}<small>{}</small></label>",
        escaped(help)
    )
}

/// The eighteen questions by level, and what else is answered.
fn contents(answers: &[Answer]) -> String {
    let mut html = String::new();
    let mut number = 0;
    let mut numbered = |title, shows, answer| {
        number += 1;
        row(number, title, shows, answer)
    };
    for level in Level::ALL {
        let rows = QUESTIONS.iter().filter(|question| question.level == level).map(|question| {
            let answer = answers.iter().find(|answer| answer.name == question.answer);
            numbered(question.title, question.shows, answer)
        });
        html += &table(level.name(), &rows.collect::<String>());
    }
    let others = questions::others(answers);
    if !others.is_empty() {
        let rows = others.iter().map(|answer| numbered(answer.question, "", Some(answer)));
        html += &table("Other questions", &rows.collect::<String>());
    }
    html
}

fn table(heading: &str, rows: &str) -> String {
    format!(
        "<h2 id=\"{id}\">{heading}</h2><div class=\"table-wrapper\"><table class=\"contents\">\
         <thead><tr><th>#</th><th>Question</th><th>What you will see</th>\
         <th>Last result here</th></tr></thead><tbody>{rows}</tbody></table></div>",
        id = heading.to_lowercase().replace(' ', "-"),
    )
}

fn row(number: usize, title: &str, shows: &str, answer: Option<&Answer>) -> String {
    let (title, last) = match answer {
        Some(answer) => (
            format!("<a href=\"{}.html\">{}</a>", answer.name, escaped(title)),
            results_in_words(answer),
        ),
        None => (escaped(title), "not written yet".to_owned()),
    };
    let class = if answer.is_some() { "written" } else { "unwritten" };
    format!(
        "<tr class=\"{class}\"><td>{number}</td><td>{title}</td><td>{}</td><td>{last}</td></tr>",
        escaped(shows)
    )
}

/// `6 held, 1 refuted, 1 not run`
fn results_in_words(answer: &Answer) -> String {
    let results = last_results(answer);
    let mut words = Vec::new();
    for verdict in [Verdict::Held, Verdict::Refuted, Verdict::BrokeOff, Verdict::Skipped] {
        let count = results.iter().filter(|report| Verdict::of(report) == verdict).count();
        if count > 0 {
            words.push(format!("{count} {}", verdict.word().to_lowercase()));
        }
    }
    let left = answer.experiments.len() - results.len();
    if left > 0 {
        words.push(format!("{left} not run"));
    }
    words.join(", ")
}

/// The last results of an answer, one for each experiment that has one.
fn last_results(answer: &Answer) -> Vec<Report> {
    let load = |name| lab::results::load(answer.name, name).map(|(report, _)| report);
    answer.experiments.iter().filter_map(|experiment| load(experiment.name)).collect()
}

/// The state of the servers, which only a guide that runs can tell.
fn stack(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => {
            "<guide-stack><table><caption>The servers, and where each comes from</caption><thead><tr><th>Server</th>\
             <th>State</th><th>From</th><th>Address</th></tr></thead>\
             <tbody aria-live=\"polite\"><tr><td colspan=\"4\">looking …</td></tr></tbody>\
             </table></guide-stack>"
        }
        Mode::Static => "",
    }
}
