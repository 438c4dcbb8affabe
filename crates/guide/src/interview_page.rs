//! How does the mock interview look on a page? As forms: the same session that the terminal drives, and it works
//! without a script and by keyboard alone.

use interview::{
    chapter::Difficulty,
    choice::{Wish, queue},
    export::{day, percent},
    outcome::{Advice, Axis, Outcome, Proof},
    progress::Progress,
    screen::{Wants, clock_in_words},
    session::Session,
    sheet::Stage,
    subject::Subject,
};
use lab::report::escaped;
use time::OffsetDateTime;

use crate::said;

/// What the page shows besides the interview that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing.
    None,
    /// The last input was refused.
    Refused,
    /// An interview has just ended.
    Result,
}

/// The page as it is now.
pub fn html(
    subjects: &[Subject],
    progress: &Progress,
    notice: Notice,
    now: OffsetDateTime,
) -> String {
    let inner = match (&progress.current, progress.interviews.last()) {
        (_, Some(last)) if notice == Notice::Result => result(progress, last),
        (Some(session), _) => match subjects.iter().find(|it| it.name == session.answer) {
            Some(subject) => step(session, subject, notice, now),
            None => gone(session),
        },
        (None, _) => choose(subjects, progress, now) + &history(progress),
    };
    format!("<mock-interview>{inner}</mock-interview>")
}

fn gone(session: &Session) -> String {
    format!(
        "<p>You are in an interview about {}, and this question is not here any more.</p>\
         <form method=\"post\" action=\"interview\"><button name=\"action\" value=\"drop\">Give it up</button></form>",
        escaped(&session.answer)
    )
}

fn choose(subjects: &[Subject], progress: &Progress, now: OffsetDateTime) -> String {
    let titles = |wish: &Wish| {
        let queue = queue(wish, subjects, progress, now);
        queue.iter().map(|it| it.chapter.title.clone()).collect::<Vec<_>>()
    };
    let sets = [
        (Wish::Any, "any", "You choose: what I know least, or last saw long ago"),
        (Wish::OneOfEach, "one-of-each", "One of each level"),
        (Wish::New, "new", "What I have not been asked"),
        (Wish::Level(Difficulty::Beginner), "beginner", "All for beginners"),
        (Wish::Level(Difficulty::Intermediate), "intermediate", "All intermediate ones"),
        (Wish::Level(Difficulty::Advanced), "advanced", "All advanced ones"),
    ];
    let radios: String = sets
        .iter()
        .map(|(wish, value, words)| {
            let titles = titles(wish);
            let (checked, disabled) = match (wish, titles.len()) {
                (_, 0) => ("", " disabled"),
                (Wish::Any, _) => (" checked", ""),
                _ => ("", ""),
            };
            let which = match &titles[..] {
                [one] => escaped(one),
                many => format!("{} questions", many.len()),
            };
            format!(
                "<label><input type=\"radio\" name=\"what\" value=\"{value}\"{checked}{disabled}> \
                 <span>{words} <small>{which}</small></span></label>"
            )
        })
        .collect();
    let options: String = subjects
        .iter()
        .map(|it| {
            let title = escaped(&it.chapter.title);
            let minutes = it.sheet.kind.all_minutes();
            format!("<option value=\"{}\">{title} ({minutes} minutes)</option>", it.name)
        })
        .collect();
    format!(
        "<form method=\"post\" action=\"interview\" class=\"choose\">\
         <fieldset><legend>What shall I ask?</legend>{radios}\
         <label for=\"question\">Or this question:</label>\
         <select id=\"question\" name=\"question\"><option value=\"\">–</option>{options}</select></fieldset>\
         <button class=\"go\" name=\"action\" value=\"begin\">Begin</button></form>"
    )
}

/// One step of the interview.
fn step(session: &Session, subject: &Subject, notice: Notice, now: OffsetDateTime) -> String {
    let screen = session.screen(subject);
    let refused = match notice {
        Notice::Refused => {
            "<p class=\"refused\" role=\"alert\">This was not understood. A number is written as 860,000 or \
             0.86 million or 10 * 86400.</p>"
        }
        Notice::None | Notice::Result => "",
    };
    format!(
        "{stages}{clock}<section class=\"step\" aria-labelledby=\"step\"><h2 id=\"step\">{heading}</h2>{says}{refused}\
         <form method=\"post\" action=\"interview\" class=\"answer\">\
         <input type=\"hidden\" name=\"action\" value=\"take\">\
         <input type=\"hidden\" name=\"taken\" value=\"{taken}\">{fields}</form></section>\
         <form method=\"post\" action=\"interview\" class=\"leave\">\
         <button name=\"action\" value=\"drop\">Give this interview up</button></form>",
        stages = stages(session, subject),
        clock = clock(session, subject, now),
        heading = escaped(&screen.heading),
        says = said::all(&screen.says, &subject.name),
        taken = session.taken,
        fields = fields(&screen.wants, &session.draft),
    )
}

fn stages(session: &Session, subject: &Subject) -> String {
    let current = session.step(subject).stage();
    let items: String = Stage::ALL
        .into_iter()
        .map(|stage| {
            let is_current = Some(stage) == current;
            let current = if is_current { " aria-current=\"step\"" } else { "" };
            let minutes = subject.sheet.kind.minutes(stage);
            format!("<li{current}>{} <small>{minutes} min</small></li>", stage.name())
        })
        .collect();
    format!("<ol class=\"stages\" aria-label=\"Stages\">{items}</ol>")
}

/// The clock of the stage. A script lets it go on; without one it is as old as the page.
fn clock(session: &Session, subject: &Subject, now: OffsetDateTime) -> String {
    let step = session.step(subject);
    let (Some(words), Some(stage)) = (clock_in_words(session, subject, now), step.stage()) else {
        return "<p class=\"clock stands\">The clock stands while you look back.</p>".to_owned();
    };
    let paused = session.is_paused(subject);
    let (action, button) = if paused { ("resume", "Go on") } else { ("pause", "Pause") };
    format!(
        "<form method=\"post\" action=\"interview\" class=\"clock\">\
         <interview-clock role=\"timer\" data-stage=\"{}\" data-used=\"{}\" data-minutes=\"{}\"{}>{words}</interview-clock> \
         <button name=\"action\" value=\"{action}\">{button}</button></form>\
         <p class=\"nudge\" role=\"status\"></p>{RECORDER}",
        stage.name(),
        session.clock.used(stage, now).as_secs(),
        subject.sheet.kind.minutes(stage),
        if paused { " data-paused" } else { "" },
    )
}

/// A script shows it where there is a microphone.
const RECORDER: &str = "<voice-recorder hidden><button type=\"button\">Record yourself</button> \
    <span role=\"status\"></span> <audio controls hidden></audio></voice-recorder>";

/// What the reader fills in.
fn fields(wants: &Wants, draft: &str) -> String {
    let go = |words: &str| format!("<button class=\"go\">{words}</button>");
    match wants {
        Wants::Text => format!(
            "<label for=\"text\">Your words, or only speak</label>\
             <textarea id=\"text\" name=\"text\" rows=\"9\" autofocus>{}</textarea>{}",
            escaped(draft),
            go("Go on")
        ),
        Wants::Number => format!(
            "<label for=\"text\">Your number</label>\
             <input id=\"text\" name=\"text\" autocomplete=\"off\" autofocus>{}",
            go("Go on")
        ),
        Wants::Ticks(items) => {
            let items: String = items
                .iter()
                .enumerate()
                .map(|(at, item)| {
                    let focus = if at == 0 { " autofocus" } else { "" };
                    format!(
                        "<label><input type=\"checkbox\" name=\"tick\" value=\"{at}\"{focus}> <span>{}</span></label>",
                        escaped(item)
                    )
                })
                .collect();
            format!("<fieldset><legend>Tick what is true</legend>{items}</fieldset>{}", go("Go on"))
        }
        Wants::Choice(items) => choices(items),
        Wants::Aloud => go_on_at_once("I have said it. Open the answer"),
        Wants::Next => go_on_at_once("Go on"),
        Wants::Nothing => String::new(),
    }
}

/// A button that Enter presses.
fn go_on_at_once(words: &str) -> String {
    format!("<button class=\"go\" autofocus>{words}</button>")
}

/// A button for each choice.
pub fn choices(items: &[String]) -> String {
    let button = |(at, item): (usize, &String)| {
        let focus = if at == 0 { " autofocus" } else { "" };
        format!("<button name=\"choice\" value=\"{at}\"{focus}>{}</button>", escaped(item))
    };
    let buttons = items.iter().enumerate().map(button).collect::<Vec<_>>().join(" ");
    format!("<p class=\"choices\">{buttons}</p>")
}

/// The result of an interview, and what comes next.
fn result(progress: &Progress, one: &Outcome) -> String {
    let mut earlier = progress.interviews_of(&one.answer).filter(|it| it.begun < one.begun);
    let before = earlier.next_back();
    let axes: String = one.axes.iter().map(|it| axis(it, before)).collect();
    let flags = advice("Red flags", &one.flags);
    let raise = advice("What would have raised it", &one.raise);
    let before = before.map_or_else(String::new, |before| {
        format!(
            "<p>Before, on {}: {}, {:.0} % of all axes. Now: {:.0} %.</p>",
            day(before.begun),
            before.level_in_words(),
            100.0 * before.share(),
            100.0 * one.share()
        )
    });
    let next = match progress.queue.first() {
        Some(_) => {
            "<form method=\"post\" action=\"interview\"><button class=\"go\" name=\"action\" value=\"next\" autofocus>\
             The next question</button></form>"
        }
        None => "",
    };
    format!(
        "<section class=\"result\" aria-labelledby=\"level\"><h2 id=\"level\">{}: {}</h2>\
         <p>{}</p>{before}<table class=\"axes\"><caption>The five axes</caption>\
         <thead><tr><th>Axis</th><th>Points</th><th>Share</th></tr></thead><tbody>{axes}</tbody></table>\
         {flags}{raise}<p><a href=\"{answer}.html\">Read the chapter</a> · \
         <a href=\"interview.html\">Another interview</a></p>{next}</section>",
        escaped(&one.title),
        one.level_in_words(),
        escaped(&one.reason),
        answer = one.answer,
    )
}

fn axis(axis: &Axis, before: Option<&Outcome>) -> String {
    let than = before.and_then(|it| it.axes.iter().find(|it| it.name == axis.name));
    let than =
        than.map_or_else(String::new, |it| format!(" <small>before: {}</small>", percent(it)));
    let meter = axis.share().map_or_else(String::new, |share| {
        format!(
            "<meter min=\"0\" max=\"1\" value=\"{share:.2}\" aria-label=\"{}\"></meter> ",
            escaped(&axis.name)
        )
    });
    format!(
        "<tr><td>{}</td><td>{} of {}</td><td>{meter}{}{than}</td></tr>",
        escaped(&axis.name),
        axis.got,
        axis.of,
        percent(axis)
    )
}

fn advice(heading: &str, all: &[Advice]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let items = all.iter().map(|advice| {
        let proof = match &advice.proof {
            Some(Proof::Experiment { answer, name }) => said::run_it(answer, name),
            Some(Proof::Code(place)) => format!("<p>Read <code>{}</code></p>", escaped(place)),
            None => String::new(),
        };
        format!("<li>{}{proof}</li>", escaped(&advice.says))
    });
    format!("<h3>{heading}</h3><ol>{}</ol>", items.collect::<String>())
}

/// All results, the newest first.
fn history(progress: &Progress) -> String {
    if progress.interviews.is_empty() {
        return String::new();
    }
    let rows = progress.interviews.iter().rev().map(|one| {
        let axes: String = one.axes.iter().map(|it| format!("<td>{}</td>", percent(it))).collect();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td>{axes}</tr>",
            day(one.begun),
            escaped(&one.title),
            one.level_in_words()
        )
    });
    let rows: String = rows.collect();
    format!(
        "<h2 id=\"your-interviews\">Your interviews</h2><div class=\"table-wrapper\" tabindex=\"0\"><table><thead><tr><th>When</th>\
         <th>Question</th><th>Level</th><th>Scoping</th><th>Correctness</th><th>Trade-offs</th><th>Numbers</th>\
         <th>Communication</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <p><a href=\"interview/export.md\" download=\"interviews.md\">Download them as Markdown</a></p>"
    )
}
