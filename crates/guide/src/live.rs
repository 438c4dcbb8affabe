//! How does an experiment get onto a page? Where the chapter names it, we put its claim, a form made from its
//! parameters, the command line, and its last result.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use interview::subject::command;
use lab::{Answer, Experiment, experiment::Param, report::escaped};
use practice::{exercise::Exercise, progress::Progress};
use regex::{Captures, Regex};
use url::Url;

use crate::{
    chapter,
    element::{EXERCISES, EXPERIMENT, pattern},
    mode::Mode,
    prediction::Predicted,
    render,
    result::Results,
};

static PARAGRAPH: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"<p>\s*(<(?:live-experiment|exercise-list|guide-contents|guide-stack|mock-interview|verdict-quiz|star-stories)[^>]*></[a-z-]*>)\s*</p>",
    )
});

/// Where a listing comes from: the file from the workspace's root, and its first line.
static LISTING: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"<p class="listing">([\w./-]+), line (\d+)</p>"#));

/// A listing that leads into an editor.
static LINKED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(<p class="listing">(?:Read )?<a [^>]*>([\w./-]+), line (\d+)</a>)</p>"#)
});

/// The files that the listings of a page show, from the workspace's root.
pub fn listed(page: &str) -> impl Iterator<Item = String> {
    LISTING.captures_iter(page).map(|found| found[1].to_owned())
}

/// Gives each listing a button that opens it in this editor. A script shows it.
pub fn with_buttons(page: &str, editor: &str) -> String {
    let button = |found: &Captures| {
        format!(
            "{} <button type=\"button\" class=\"small open-editor\" data-path=\"{}\" data-line=\"{}\" hidden>\
             Open in {}</button> <span role=\"status\"></span></p>",
            &found[1],
            &found[2],
            &found[3],
            escaped(editor)
        )
    };
    LINKED.replace_all(page, button).into_owned()
}

/// Leads from a listing into the reader's editor. Only a guide that runs here knows where the file is.
fn with_editor(page: &str, root: &Path) -> String {
    let link = |found: &Captures| {
        let link = link(&found[1], &found[2], root);
        link.map_or_else(|| found[0].to_owned(), |link| format!("<p class=\"listing\">{link}</p>"))
    };
    LISTING.replace_all(page, link).into_owned()
}

/// A link that opens a file of the workspace in the reader's editor.
fn link(path: &str, line: &str, root: &Path) -> Option<String> {
    // A folder may have a space or a `#` in its name.
    let file = Url::from_file_path(root.join(path)).ok()?;
    Some(format!(
        "<a href=\"vscode://file{}:{line}\" title=\"Opens it in your editor\">{path}, line {line}</a>",
        escaped(file.path())
    ))
}

/// Tells the reader to read the code at `crates/ANSWER/FILE:ANCHOR`.
pub fn read_code(place: &str) -> String {
    let root = practice::workspace();
    let path = place.split(':').next().unwrap_or_default();
    let line = chapter::first_line(place, &root);
    let link = line.and_then(|line| link(path, &line.to_string(), &root));
    link.map_or_else(
        || format!("<p>Read <code>{}</code></p>", escaped(place)),
        |link| format!("<p class=\"listing\">Read {link}</p>"),
    )
}

/// Fills in what changes between requests: the experiments with their last results, the exercises, the servers. What
/// depends on the reader is filled in by the server; in a static book, a script does.
pub fn fill(page: &str, answers: &[Answer], all: &[Exercise], mode: Mode) -> String {
    let mut results = BTreeMap::new();
    // mdBook puts each element into a paragraph, but a paragraph must not contain blocks.
    let page = PARAGRAPH.replace_all(page, "$1");
    let page = experiments(&page, answers, |answer, experiment| {
        let first = !results.contains_key(answer.name);
        let results = results.entry(answer.name);
        let results = results.or_insert_with(|| Results::of(answer, mode));
        let all = if first { run_all(answer, mode) } else { String::new() };
        all + &element(answer, experiment, mode, results)
    });
    let page = EXERCISES.replace_all(&page, |found: &Captures| {
        let answer = answers.iter().find(|answer| answer.name == &found[1]);
        answer.map_or_else(
            || format!("<p>There is no answer {}.</p>", &found[1]),
            |answer| exercises(answer, all, mode),
        )
    });
    let page = page.replace("<guide-stack></guide-stack>", stack(mode));
    if mode == Mode::Live { with_editor(&page, &practice::workspace()) } else { page }
}

/// A page about several answers, such as the quiz, with its experiments filled in.
pub fn fill_experiments(page: &str, answers: &[Answer]) -> String {
    experiments(page, answers, |answer, experiment| {
        element(answer, experiment, Mode::Live, &Results::of(answer, Mode::Live))
    })
}

fn experiments<'a>(
    page: &str,
    answers: &'a [Answer],
    mut element: impl FnMut(&'a Answer, &'a Experiment) -> String,
) -> String {
    let filled = EXPERIMENT.replace_all(page, |found: &Captures| {
        let answer = answers.iter().find(|answer| answer.name == &found[1]);
        let experiment = answer.and_then(|answer| Some((answer, answer.experiment(&found[2])?)));
        experiment.map_or_else(
            || format!("<p>There is no experiment {} {}.</p>", &found[1], &found[2]),
            |(answer, experiment)| element(answer, experiment),
        )
    });
    filled.into_owned()
}

/// The exercises of one answer, and how far the reader is with each.
fn exercises(answer: &Answer, all: &[Exercise], mode: Mode) -> String {
    let progress = match mode {
        Mode::Live => Progress::load(&practice::workspace()),
        Mode::Static => Ok(Progress::default()),
    };
    let progress = match progress {
        Ok(progress) => progress,
        Err(error) => return format!("<p>{}</p>", escaped(&format!("{error:#}"))),
    };
    let of_answer = all.iter().filter(|exercise| exercise.key.answer == answer.name);
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
        "<p>Or write the whole answer in your own language. This command tries it like a client, with up to {} cases, \
         and prints for each what your program answered; for a failed case also what the table of calls says and why it \
         matters. The cases under load need <code>--load</code>, and the crash cases need <code>--restart-cmd</code> with \
         the command that starts your program:</p><pre><code>cargo run -- \
         conform {} --target http://127.0.0.1:9000</code></pre>",
        answer.suite.cases.len(),
        answer.name,
    )
}

/// The buttons above the first experiment of a chapter. Only the script shows them, because they need it.
fn run_all(answer: &Answer, mode: Mode) -> String {
    match mode {
        Mode::Static => String::new(),
        Mode::Live => format!(
            "<run-all answer=\"{}\" hidden><button class=\"run\">Run all of this chapter</button> \
             <button class=\"stop\" hidden>Stop</button> \
             <span class=\"status\" role=\"status\"></span></run-all>",
            answer.name
        ),
    }
}

/// One experiment.
fn element(answer: &Answer, experiment: &Experiment, mode: Mode, results: &Results<'_>) -> String {
    let (of, name) = (answer.name, experiment.name);
    let form = match (mode, experiment.obstacle(answer)) {
        (Mode::Static, _) => String::new(),
        (Mode::Live, None) => form(experiment, results),
        (Mode::Live, Some(why)) => {
            format!("<p class=\"made-on\">It cannot run here: {}.</p>", escaped(&why))
        }
    };
    format!(
        "<live-experiment answer=\"{of}\" name=\"{name}\">\
         <h3 id=\"{of}-{name}\"><a class=\"header\" href=\"#{of}-{name}\">{name}</a></h3>\
         <p class=\"claim\">{claim}.</p>{form}\
         <p class=\"command\"><code>{command}</code></p>\
         <div class=\"result\">{results}</div>{sabotages}\
         </live-experiment>",
        claim = escaped(experiment.claim),
        command = escaped(&command(of, name)),
        sabotages = experiment.sabotages.iter().map(|it| it.html(of)).collect::<String>(),
        results = results.html(name),
    )
}

fn form(experiment: &Experiment, results: &Results) -> String {
    let mut fields: String = experiment.params().iter().map(field).collect();
    if results.is_failed_by_the_whiteboard(experiment.name) {
        fields += "<label><span class=\"name\">whiteboard</span><input name=\"whiteboard\" type=\"checkbox\">\
                   <small>Tries the whiteboard version, which fails this</small></label>";
    }
    let predict = results.ours(experiment.name);
    let predict = predict.map(|ours| Predicted::fields(&ours.report, results.quotes()));
    let predict = predict.unwrap_or_default();
    // Only the script shows the form, because it needs the script.
    format!(
        "<form hidden><div class=\"fields\">{fields}</div>{predict}\
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

/// The state of the servers. Only a running guide can show it.
fn stack(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => {
            "<guide-stack><div class=\"table-wrapper\"><table><caption>The servers, and where each comes from</caption><thead><tr><th>Server</th>\
             <th>State</th><th>From</th><th>Address</th></tr></thead>\
             <tbody aria-live=\"polite\"><tr><td colspan=\"4\">looking …</td></tr></tbody>\
             </table></div></guide-stack>"
        }
        Mode::Static => "",
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_editor_finds_a_file_in_a_folder_with_a_space() {
        let page = with_editor(
            "<p class=\"listing\">crates/a/src/lib.rs, line 7</p>",
            Path::new("/home/me/my #1 code"),
        );
        let link = "href=\"vscode://file/home/me/my%20%231%20code/crates/a/src/lib.rs:7\"";
        assert!(page.contains(link), "{page}");
        let page = with_buttons(&page, "zed");
        assert!(
            page.contains("data-path=\"crates/a/src/lib.rs\" data-line=\"7\" hidden>Open in zed<")
        );
    }

    #[test]
    fn code_that_is_to_be_read_opens_in_an_editor_and_has_its_button() {
        let html = read_code("crates/jwt-auth/src/sessions.rs:logout");
        assert!(html.starts_with("<p class=\"listing\">Read <a href=\"vscode://file/"), "{html}");
        let html = with_buttons(&html, "zed");
        assert!(html.contains("data-path=\"crates/jwt-auth/src/sessions.rs\""), "{html}");
        let html = read_code("crates/jwt-auth/src/sessions.rs:nothing");
        assert!(!html.contains("<a "), "{html}");
    }

    #[test]
    fn an_experiment_of_the_quiz_has_its_form_and_not_the_whole_chapter() {
        let element = "<live-experiment answer=\"url-shortener\" name=\"race\"></live-experiment>";
        let page = fill_experiments(element, &crate::answers());
        assert!(page.contains("<form hidden>") && page.contains("name=\"clients\""), "{page}");
        assert!(!page.contains("<run-all"), "{page}");
    }
}
