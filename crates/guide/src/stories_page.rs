//! How does a reader prepare for behavioural questions? With a story for each, told as situation, task, action and
//! result, in a form.

use interview::progress::{Progress, Story};
use lab::report::escaped;

/// The form, and the stories that were written. `at` is the place of a story that is to be changed.
pub fn html(progress: &Progress, at: Option<usize>) -> String {
    let changed = at.and_then(|at| Some((at, progress.stories.get(at)?)));
    let nothing = Story::default();
    let (hidden, now, keep) = match changed {
        Some((at, story)) => (which(at, story), story, "Keep this change"),
        None => (String::new(), &nothing, "Keep this story"),
    };
    let stories: String = progress
        .stories
        .iter()
        .enumerate()
        .map(|(at, story)| {
            let parts = [
                ("Situation", &story.situation),
                ("Task", &story.task),
                ("Action", &story.action),
                ("Result", &story.result),
            ];
            let parts = parts.map(|(name, words)| {
                format!("<dt>{name}</dt><dd class=\"words\">{}</dd>", escaped(words))
            });
            format!(
                "<section class=\"story\"><h2 id=\"story-{at}\">{question}</h2><dl>{}</dl>\
                 <form method=\"post\" action=\"stories\">{}\
                 <a href=\"stories.html?at={at}\" aria-label=\"Change “{question}”\">Change it</a> \
                 <button class=\"small\" name=\"do\" value=\"remove\" aria-label=\"Remove “{question}”\">\
                 Remove it</button></form></section>",
                parts.concat(),
                which(at, story),
                question = escaped(&story.question),
            )
        })
        .collect();
    let export = if stories.is_empty() {
        ""
    } else {
        "<p><a href=\"interview/export.md\" download=\"interviews.md\">Download them as Markdown</a></p>"
    };
    let field = |name: &str, label: &str, help: &str, now: &str| {
        format!(
            "<label for=\"{name}\">{label} <small>{help}</small></label>\
             <textarea id=\"{name}\" name=\"{name}\" rows=\"3\">\n{}</textarea>",
            escaped(now)
        )
    };
    format!(
        "<star-stories><form method=\"post\" action=\"stories\">{hidden}\
         <label for=\"asked\">The question <small>“Tell me about a conflict in your team.”</small></label>\
         <input id=\"asked\" name=\"question\" value=\"{}\" required autocomplete=\"off\">{}{}{}{}\
         <button class=\"go\">{keep}</button></form>{stories}{export}</star-stories>",
        escaped(&now.question),
        field("situation", "Situation", "Where and when? Two sentences.", &now.situation),
        field("task", "Task", "What did you have to do? One sentence.", &now.task),
        field("action", "Action", "What did <em>you</em> do? “I”, not “we”.", &now.action),
        field(
            "result",
            "Result",
            "What came of it? With a number, and with what you learned.",
            &now.result
        ),
    )
}

/// Which story a form is about. Its question is in it too: another tab may have removed one meanwhile.
fn which(at: usize, story: &Story) -> String {
    format!(
        "<input type=\"hidden\" name=\"at\" value=\"{at}\"><input type=\"hidden\" name=\"of\" value=\"{}\">",
        escaped(&story.question)
    )
}
