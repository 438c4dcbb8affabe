//! What does a reader do tonight, on a weekend, or in three weeks? Three plans, with what is done already.

use interview::subject::Subject;
use lab::{Answer, report::escaped};

use crate::state::Standing;

/// The plans, each folded.
pub fn html(answers: &[Answer], subjects: &[Subject], standing: &Standing) -> String {
    let unread: Vec<_> = answers.iter().filter(|it| !standing.with(it).read).collect();
    let all = answers.len();
    let chapters = |count: usize| {
        let links = unread.iter().take(count).map(|answer| {
            let subject = subjects.iter().find(|it| it.name == answer.name);
            let title = subject.map_or(answer.question, |it| &it.chapter.title);
            format!("<a href=\"{}.html\">{}</a>", answer.name, escaped(title))
        });
        let links = links.collect::<Vec<_>>().join("; ");
        if links.is_empty() { "you have read all of them".to_owned() } else { links }
    };
    let tonight = format!(
        "<ol><li>The <em>tonight</em> path of two chapters (an hour): {}.</li>\
         <li><a href=\"quiz.html\">Ten sentences</a> (10 minutes).</li>\
         <li><a href=\"interview.html\">One interview</a> (15 or 45 minutes), aloud.</li></ol>\
         <p>Preparing well takes three to six months. Tonight covers the last day of it: what you already know, said in \
         the right order.</p>",
        chapters(2)
    );
    let weekend = format!(
        "<ol><li>The <em>tonight</em> path of six chapters (three hours): {}.</li>\
         <li>One experiment of each, with a prediction first (an hour).</li>\
         <li><a href=\"quiz.html\">Ten sentences</a> on each day.</li>\
         <li>Three interviews: <a href=\"interview.html\">one of each level</a> (two hours).</li>\
         <li>Two <a href=\"stories.html\">stories</a> of your own (an hour).</li></ol>\
         <p>Of the three to six months this covers the repetition: it finds the gaps, and it closes the small ones.</p>",
        chapters(6)
    );
    let weeks = format!(
        "<ol><li>Week 1: the beginners' chapters, <em>this evening</em> path, an exercise of each; \
         <a href=\"quiz.html\">ten sentences</a> a day.</li>\
         <li>Week 2: the intermediate ones, and an interview every second day.</li>\
         <li>Week 3: the advanced ones; be asked again what was weak; five stories.</li></ol>\
         <p>You have read {} of {all}. Of the three to six months this covers all questions here, with what proves them. \
         It does not cover what only building and running a service of your own teaches, nor algorithms.</p>",
        all - unread.len()
    );
    let plan = |name: &str, minutes: &str, body: &str| {
        format!("<details><summary>{name} <small>{minutes}</small></summary>{body}</details>")
    };
    format!(
        "<h2 id=\"plans\">Plans</h2><div class=\"plans\">{}{}{}</div>",
        plan("Tonight", "two hours", &tonight),
        plan("A weekend", "eight hours", &weekend),
        plan("Three weeks", "an hour a day", &weeks),
    )
}
