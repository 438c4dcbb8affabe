//! How does the mock interview look on a page? As forms: the same session that the terminal drives, and it works
//! without a script and by keyboard alone.

use interview::{
    chapter::Difficulty,
    choice::{Wish, queue},
    export::{day, percent},
    outcome::{Advice, Axis, Outcome, Proof},
    progress::Progress,
    said::Said,
    screen::{Wants, clock_in_words},
    session::Session,
    sheet::Stage,
    subject::Subject,
};
use lab::report::escaped;
use time::OffsetDateTime;

use crate::{forms::Fields, live, speech};

/// The page as it is now. The query may say that an interview has just ended, or that an input was refused.
pub fn html(
    subjects: &[Subject],
    progress: &Progress,
    query: &Fields,
    now: OffsetDateTime,
) -> String {
    let inner = match (&progress.current, progress.interviews.last()) {
        (_, Some(last)) if query.has("result") => result(subjects, progress, last),
        (Some(session), _) => match subjects.iter().find(|it| it.name == session.answer) {
            Some(subject) => step(session, subject, query.has("refused"), now),
            None => gone(session),
        },
        (None, _) => {
            next_of_set(subjects, progress)
                + &choose(subjects, progress, query.one("question"), now)
                + &history(progress)
        }
    };
    format!("<mock-interview>{inner}</mock-interview>")
}

fn gone(session: &Session) -> String {
    format!(
        "<p>You are in an interview about {}, and this question is not here any more.</p>{}",
        escaped(&session.answer),
        give_up(session)
    )
}

/// A form that ends the interview without a result. It asks once, because the reader's words are lost by it.
fn give_up(session: &Session) -> String {
    format!(
        "<details class=\"leave\"><summary>Give this interview up</summary>\
         <form method=\"post\" action=\"interview\">\
         <input type=\"hidden\" name=\"place\" value=\"{}\">\
         <p>All that you said in it is lost.</p>\
         <button name=\"action\" value=\"drop\">Give it up</button></form></details>",
        session.place()
    )
}

/// A form that begins the next question of the set; nothing if there is none.
fn next_of_set(subjects: &[Subject], progress: &Progress) -> String {
    progress.next_of_set(subjects).map_or_else(String::new, |next| {
        format!(
            "<form method=\"post\" action=\"interview\"><button class=\"go\" name=\"action\" value=\"next\">\
             Go on with your set: {}</button></form>",
            escaped(&next.chapter.title)
        )
    })
}

/// `chosen` is the name of a question that is selected.
fn choose(subjects: &[Subject], progress: &Progress, chosen: &str, now: OffsetDateTime) -> String {
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
            let selected = if it.name == chosen { " selected" } else { "" };
            format!("<option value=\"{}\"{selected}>{title} ({minutes} minutes)</option>", it.name)
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

/// One step of the interview. The words of the reader are in one form with all of its buttons, so that none of them
/// loses the words.
fn step(session: &Session, subject: &Subject, is_refused: bool, now: OffsetDateTime) -> String {
    let screen = session.screen(subject);
    let refused = if is_refused { refused(&screen.wants, &session.draft) } else { String::new() };
    // A screen reader begins at what has the focus. A field is described by what is said before it.
    let focus = match screen.wants {
        Wants::Text | Wants::Number => "",
        _ => FOCUS,
    };
    format!(
        "{stages}{clock}<section class=\"step\" aria-labelledby=\"step\"><h2 id=\"step\"{focus}>{heading}</h2>\
         <div id=\"says\">{says}</div>{refused}\
         <form method=\"post\" action=\"interview\" class=\"answer\">\
         <input type=\"hidden\" name=\"action\" value=\"take\">\
         <input type=\"hidden\" name=\"place\" value=\"{place}\">{fields}{pause}</form></section>{give_up}",
        stages = stages(session, subject),
        clock = clock(session, subject, now),
        heading = escaped(&screen.heading),
        says = speech::all(&screen.says, &subject.name),
        place = session.place(),
        fields = fields(&screen.wants, &session.draft),
        pause = pause(session),
        give_up = give_up(session),
    )
}

/// The heading gets the focus when the page was loaded.
pub const FOCUS: &str = " tabindex=\"-1\" autofocus";

/// Why an input was refused.
fn refused(wants: &Wants, draft: &str) -> String {
    let no_number = match wants {
        Wants::Number => Said::parse(draft).err().map(|error| error.to_string()),
        _ => None,
    };
    let words =
        no_number.unwrap_or_else(|| "This does not fit this step. Answer again.".to_owned());
    format!("<p id=\"refused\" class=\"refused\" role=\"alert\">{}</p>", escaped(&words))
}

/// A button that stops or starts the clock, while one runs.
fn pause(session: &Session) -> &'static str {
    if !session.step().is_timed() {
        return "";
    }
    if session.is_paused() {
        " <button name=\"action\" value=\"resume\">Start the clock again</button>"
    } else {
        " <button name=\"action\" value=\"pause\">Pause</button>"
    }
}

fn stages(session: &Session, subject: &Subject) -> String {
    let current = session.step().stage();
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
    let (Some(words), Some(stage)) =
        (clock_in_words(session, subject, now), session.step().stage())
    else {
        return "<p class=\"clock stands\">The clock is stopped while you look back.</p>"
            .to_owned();
    };
    format!(
        "<p class=\"clock\">\
         <interview-clock role=\"timer\" data-stage=\"{}\" data-used=\"{}\" data-minutes=\"{}\"{}>{words}</interview-clock></p>\
         <p class=\"nudge\" role=\"status\"></p>{RECORDER}",
        stage.name(),
        session.clock.used(stage, now).as_secs(),
        subject.sheet.kind.minutes(stage),
        if session.is_paused() { " data-paused" } else { "" },
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
             <textarea id=\"text\" name=\"text\" rows=\"9\" {DESCRIBED} autofocus>\n{}</textarea>{}",
            escaped(draft),
            go("Go on")
        ),
        Wants::Number => format!(
            "<label for=\"text\">Your number</label>\
             <input id=\"text\" name=\"text\" value=\"{}\" autocomplete=\"off\" {DESCRIBED} autofocus>{}",
            escaped(draft),
            go("Go on")
        ),
        Wants::Ticks(items) => {
            let item = |(at, item): (usize, &String)| {
                format!(
                    "<label><input type=\"checkbox\" name=\"tick\" value=\"{at}\"> <span>{}</span></label>",
                    escaped(item)
                )
            };
            let items: String = items.iter().enumerate().map(item).collect();
            format!("<fieldset><legend>Tick what is true</legend>{items}</fieldset>{}", go("Go on"))
        }
        Wants::Choice(items) => choices(items),
        Wants::Aloud => go("I have said it. Open the answer"),
        Wants::Next => go("Go on"),
        Wants::Nothing => String::new(),
    }
}

const DESCRIBED: &str = "aria-describedby=\"step says refused\"";

/// A button for each choice.
pub fn choices(items: &[String]) -> String {
    let button = |(at, item): (usize, &String)| {
        format!("<button name=\"choice\" value=\"{at}\">{}</button>", escaped(item))
    };
    let buttons = items.iter().enumerate().map(button).collect::<Vec<_>>().join(" ");
    format!(
        "<fieldset class=\"choices\"><legend>Your choice, or its number</legend>{buttons}</fieldset>"
    )
}

/// The result of an interview, and what comes next.
fn result(subjects: &[Subject], progress: &Progress, one: &Outcome) -> String {
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
    let next = next_of_set(subjects, progress);
    format!(
        "<section class=\"result\" aria-labelledby=\"level\"><h2 id=\"level\"{FOCUS}>{}: {}</h2>\
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
            Some(Proof::Experiment { answer, name }) => speech::run_it(answer, name),
            Some(Proof::Code(place)) => live::read_code(place),
            Some(Proof::Part { answer, heading }) => format!(
                "<p><a href=\"{answer}.html#{}\">Read “{}”</a></p>",
                heading.to_lowercase().replace(' ', "-"),
                escaped(heading)
            ),
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

#[cfg(test)]
mod tests {
    use interview::session::{Input, Session};

    use super::*;

    fn subjects() -> Vec<Subject> {
        Subject::all(&interview::workspace()).unwrap()
    }

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
    }

    fn page(progress: &Progress, query: &str) -> String {
        html(&subjects(), progress, &Fields::parse(query.as_bytes()), at(60))
    }

    /// An interview about the first question, at its opening.
    fn begun() -> Progress {
        let mut progress = Progress::default();
        assert!(progress.begin(&Wish::Answer("url-shortener".to_owned()), &subjects(), at(0)));
        progress
    }

    fn session(progress: &mut Progress) -> &mut Session {
        progress.current.as_mut().unwrap()
    }

    #[test]
    fn the_words_and_every_button_of_a_step_are_in_one_form() {
        let mut progress = begun();
        session(&mut progress).draft = "</textarea>\nmine".to_owned();
        let html = page(&progress, "");
        let form = html.split("<form").find(|it| it.contains("class=\"answer\"")).unwrap();
        for part in [
            "&lt;/textarea&gt;\nmine</textarea>",
            "value=\"pause\"",
            "name=\"place\" value=\"0-0\"",
        ] {
            assert!(form.contains(part), "no {part} in {form}");
        }
        assert!(form.find("class=\"go\"") < form.find("value=\"pause\""), "Enter goes on");
        session(&mut progress).pause(at(30));
        let html = page(&progress, "");
        assert_eq!(html.matches(">Go on</button>").count(), 1, "two buttons of one name: {html}");
        assert!(html.contains("Start the clock again"));
    }

    #[test]
    fn a_number_that_was_refused_is_still_there_with_the_reason() {
        let (mut progress, subjects) = (begun(), subjects());
        let subject = subjects.iter().find(|it| it.name == "url-shortener").unwrap();
        let session = session(&mut progress);
        while session.screen(subject).wants != Wants::Number {
            session.take(subject, &Input::Next, at(1)).unwrap();
        }
        session.draft = "1,5 million".to_owned();
        let html = page(&progress, "refused");
        assert!(html.contains("value=\"1,5 million\"") && html.contains("is no number"), "{html}");
    }

    #[test]
    fn a_screen_reader_begins_where_there_is_something_to_read() {
        let (mut progress, subjects) = (begun(), subjects());
        let subject = subjects.iter().find(|it| it.name == "url-shortener").unwrap();
        let mut kinds = 0;
        while !session(&mut progress).is_over() {
            let wants = session(&mut progress).screen(subject).wants;
            let html = page(&progress, "");
            assert_eq!(html.matches(" autofocus").count(), 1, "{wants:?}");
            let is_field = matches!(wants, Wants::Text | Wants::Number);
            assert_eq!(html.contains("aria-describedby=\"step says refused\" autofocus"), is_field);
            assert_eq!(html.contains("<h2 id=\"step\" tabindex=\"-1\" autofocus>"), !is_field);
            kinds += 1;
            let input = if let Wants::Choice(_) = wants { Input::Choice(0) } else { Input::Next };
            session(&mut progress).take(subject, &input, at(1)).unwrap();
        }
        assert!(kinds > 15);
    }

    #[test]
    fn a_set_goes_on_another_day_and_a_link_selects_its_question() {
        let queue = ["gone", "jwt-auth"].map(str::to_owned).to_vec();
        let html = page(&Progress { queue, ..Progress::default() }, "question=url-shortener");
        assert!(html.contains("Go on with your set: "), "{html}");
        assert!(html.contains("<option value=\"url-shortener\" selected>"), "{html}");
        assert!(!page(&Progress::default(), "").contains("Go on with your set"));
    }
}
