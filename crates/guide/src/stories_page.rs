//! How does a reader prepare for behavioural questions? With a story for each, told as situation, task, action and
//! result, in a form.

use interview::progress::Progress;
use lab::report::escaped;

/// The form, and the stories that were written.
pub fn html(progress: &Progress) -> String {
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
                "<section class=\"story\"><h2 id=\"story-{at}\">{}</h2><dl>{}</dl></section>",
                escaped(&story.question),
                parts.concat()
            )
        })
        .collect();
    let export = if stories.is_empty() {
        ""
    } else {
        "<p><a href=\"interview/export.md\" download=\"interviews.md\">Download them as Markdown</a></p>"
    };
    let field = |name: &str, label: &str, help: &str| {
        format!(
            "<label for=\"{name}\">{label} <small>{help}</small></label>\
             <textarea id=\"{name}\" name=\"{name}\" rows=\"3\"></textarea>"
        )
    };
    format!(
        "<star-stories><form method=\"post\" action=\"stories\">\
         <label for=\"asked\">The question <small>“Tell me about a conflict in your team.”</small></label>\
         <input id=\"asked\" name=\"question\" required autocomplete=\"off\">{}{}{}{}\
         <button class=\"go\">Keep this story</button></form>{stories}{export}</star-stories>",
        field("situation", "Situation", "Where and when? Two sentences."),
        field("task", "Task", "What did you have to do? One sentence."),
        field("action", "Action", "What did <em>you</em> do? “I”, not “we”."),
        field("result", "Result", "What came of it? With a number, and with what you learned."),
    )
}
