//! What happens when a reader sends a form? The progress changes, and the browser is sent to the page that shows it.

use std::collections::BTreeMap;

use anyhow::Context;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use interview::{
    chapter::Verdict,
    choice::{Wish, plan, queue},
    export::export,
    outcome::Outcome,
    progress::{Progress, Story, judged},
    session::{Input, Session},
    subject::Subject,
};
use time::OffsetDateTime;

use crate::{problem::problem, reader::Reader};

/// The fields of a form, by name. A field may come several times.
#[derive(Debug)]
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// Reads a form as a browser sends it.
    pub fn parse(body: &[u8]) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            fields.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(fields)
    }

    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The field's value; empty if there is none.
    pub fn one(&self, name: &str) -> &str {
        self.all(name).first().map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.one(name).parse().ok()
    }

    /// What the reader answered to a step.
    fn input(&self) -> Input {
        if let Some(choice) = self.number("choice") {
            return Input::Choice(choice);
        }
        if !self.one("text").is_empty() {
            return Input::Text(self.one("text").replace("\r\n", "\n"));
        }
        let ticks: Vec<_> = self.all("tick").iter().filter_map(|tick| tick.parse().ok()).collect();
        if ticks.is_empty() { Input::Next } else { Input::Ticks(ticks.into_iter().collect()) }
    }
}

/// `POST /interview`: begins an interview, goes on with it, pauses it or gives it up.
pub fn interview(reader: &Reader, subjects: &[Subject], fields: &Fields) -> Response {
    let now = OffsetDateTime::now_utc();
    let changed = reader.change(|progress| {
        let to = match fields.one("action") {
            "begin" => begin(progress, subjects, fields, now),
            "next" => begin_next(progress, subjects, now),
            "drop" => {
                progress.current = None;
                progress.queue.clear();
                "interview.html"
            }
            action => move_on(progress, subjects, action, fields, now)?,
        };
        Ok(to)
    });
    shown(changed)
}

fn begin(
    progress: &mut Progress,
    subjects: &[Subject],
    fields: &Fields,
    now: OffsetDateTime,
) -> &'static str {
    // A second click, or a second tab: go on with what has begun.
    if progress.current.is_some() {
        return "interview.html";
    }
    let what =
        Some(fields.one("question")).filter(|it| !it.is_empty()).unwrap_or(fields.one("what"));
    let wish: Wish = what.parse().unwrap_or(Wish::Any);
    let names = queue(&wish, subjects, progress, now).iter().map(|it| it.name.clone()).collect();
    progress.queue = names;
    begin_next(progress, subjects, now)
}

fn begin_next(progress: &mut Progress, subjects: &[Subject], now: OffsetDateTime) -> &'static str {
    while progress.current.is_none()
        && let Some(name) = progress.next_in_queue()
    {
        // A question that has gone is left out.
        if let Some(subject) = subjects.iter().find(|it| it.name == name) {
            let plan = plan(subject, progress, now);
            progress.current = Some(Session::begin(subject, plan, now));
        }
    }
    "interview.html"
}

fn move_on(
    progress: &mut Progress,
    subjects: &[Subject],
    action: &str,
    fields: &Fields,
    now: OffsetDateTime,
) -> anyhow::Result<&'static str> {
    let Some(session) = &mut progress.current else { return Ok("interview.html") };
    let subject = subjects.iter().find(|it| it.name == session.answer);
    let subject = subject.with_context(|| format!("there is no question {}", session.answer))?;
    match action {
        "pause" => session.pause(now),
        "resume" => session.resume(subject, now),
        // A form of an older step, sent again by a second click or from another tab, changes nothing.
        "take" if fields.number("taken") == Some(session.taken) => {
            if session.take(subject, &fields.input(), now).is_err() {
                return Ok("interview.html?refused#step");
            }
            if session.is_over(subject) {
                let outcome = Outcome::of(session, subject, now);
                progress.finish(outcome);
                return Ok("interview.html?result");
            }
        }
        _ => {}
    }
    Ok("interview.html")
}

/// `POST /quiz`: judges a sentence.
pub fn quiz(reader: &Reader, subjects: &[Subject], fields: &Fields) -> Response {
    let subject = subjects.iter().find(|it| it.name == fields.one("answer"));
    let at = fields.number("at").unwrap_or(usize::MAX);
    let sentence = subject.and_then(|it| it.chapter.sentences.get(at));
    let said = fields.number("choice").and_then(|it| Verdict::ALL.get(it).copied());
    let (Some(subject), Some(sentence), Some(said)) = (subject, sentence, said) else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "there is no such sentence or verdict");
    };
    let now = OffsetDateTime::now_utc();
    let changed = reader.change(|progress| {
        let one = judged(&subject.name, &sentence.says, said, sentence.verdict, now);
        progress.judged.push(one);
        Ok(format!("quiz.html?answer={}&at={at}", subject.name))
    });
    shown(changed)
}

/// `POST /stories`: keeps a story.
pub fn stories(reader: &Reader, fields: &Fields) -> Response {
    let text = |name: &str| fields.one(name).trim().replace("\r\n", "\n");
    let story = Story {
        question: text("question"),
        situation: text("situation"),
        task: text("task"),
        action: text("action"),
        result: text("result"),
    };
    shown(reader.change(|progress| {
        if !story.question.is_empty() && !progress.stories.contains(&story) {
            progress.stories.push(story);
        }
        Ok("stories.html")
    }))
}

/// `POST /api/read/{answer}`: the reader has come to the end of a chapter.
pub fn read(reader: &Reader, subjects: &[Subject], answer: &str) -> Response {
    if !subjects.iter().any(|it| it.name == answer) {
        return problem(StatusCode::NOT_FOUND, "there is no such chapter");
    }
    let changed = reader.change(|progress| {
        progress.read.insert(answer.to_owned());
        Ok(())
    });
    match changed {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

/// `GET /interview/export.md`: all results.
pub fn exported(reader: &Reader) -> Response {
    match reader.progress() {
        Ok(progress) => {
            let kind = [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")];
            (kind, export(&progress)).into_response()
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

/// Sends the browser to the page that shows what was changed.
fn shown(changed: anyhow::Result<impl AsRef<str>>) -> Response {
    match changed {
        Ok(page) => Redirect::to(&format!("/{}", page.as_ref())).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use interview::{screen::Wants, session::HABITS};
    use tempfile::TempDir;

    use super::*;

    /// Where a form leads.
    fn to(response: &Response) -> &str {
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        response.headers()[header::LOCATION].to_str().unwrap()
    }

    fn subjects() -> Vec<Subject> {
        Subject::all(&interview::workspace()).unwrap()
    }

    fn reader() -> (TempDir, Reader) {
        let folder = tempfile::tempdir().unwrap();
        let reader = Reader::of(folder.path());
        (folder, reader)
    }

    fn send(reader: &Reader, body: &str) -> Response {
        interview(reader, &subjects(), &Fields::parse(body.as_bytes()))
    }

    #[test]
    fn a_form_becomes_an_input() {
        for (body, input) in [
            ("text=a+b%0D%0Ac", Input::Text("a b\nc".to_owned())),
            ("text=", Input::Next),
            ("tick=2&tick=0", Input::Ticks([0, 2].into())),
            ("choice=1&taken=3", Input::Choice(1)),
            ("", Input::Next),
        ] {
            assert_eq!(Fields::parse(body.as_bytes()).input(), input, "{body}");
        }
    }

    #[test]
    fn every_answer_can_be_asked_to_its_end_by_forms() {
        for subject in subjects() {
            let (_folder, reader) = reader();
            send(&reader, &format!("action=begin&question={}", subject.name));
            let mut steps = 0;
            let last = loop {
                let session = reader.progress().unwrap().current.unwrap();
                let answer = match session.screen(&subject).wants {
                    Wants::Text => "text=words",
                    Wants::Number => "text=1000",
                    Wants::Ticks(_) => "tick=0",
                    Wants::Choice(_) => "choice=0",
                    Wants::Aloud | Wants::Next | Wants::Nothing => "",
                };
                let body = format!("action=take&taken={}&{answer}", session.taken);
                let page = send(&reader, &body);
                if to(&page) != "/interview.html" {
                    break page;
                }
                steps += 1;
            };
            assert_eq!(to(&last), "/interview.html?result");
            assert!(steps > 15, "{}: {steps} steps", subject.name);
            let progress = reader.progress().unwrap();
            let habits = &progress.interviews[0].notes.habits;
            assert!(progress.current.is_none() && habits.contains(HABITS[0]), "{}", subject.name);
        }
    }

    #[test]
    fn a_form_that_is_sent_twice_counts_once() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&question=url-shortener");
        for _ in 0..2 {
            assert_eq!(to(&send(&reader, "action=take&taken=0&text=How+many")), "/interview.html");
        }
        let session = reader.progress().unwrap().current.unwrap();
        assert_eq!((session.taken, &*session.notes.questions), (1, "How many"));
        send(&reader, "action=begin&question=jwt-auth");
        assert_eq!(reader.progress().unwrap().current.unwrap().answer, "url-shortener");
    }

    #[test]
    fn an_input_that_is_refused_says_so_and_a_pause_stops_the_clock() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&question=url-shortener");
        assert!(to(&send(&reader, "action=take&taken=0&choice=1")).contains("refused"));
        send(&reader, "action=pause");
        assert!(reader.progress().unwrap().current.unwrap().clock.is_paused());
        send(&reader, "action=resume");
        assert!(!reader.progress().unwrap().current.unwrap().clock.is_paused());
        send(&reader, "action=drop");
        assert!(reader.progress().unwrap().current.is_none());
    }

    #[test]
    fn a_set_is_asked_one_after_another() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&what=one-of-each");
        let progress = reader.progress().unwrap();
        assert_eq!((progress.current.is_some(), progress.queue.len()), (true, 2));
    }

    #[test]
    fn a_sentence_is_judged_and_kept() {
        let (_folder, reader) = reader();
        let fields = |body: &str| Fields::parse(body.as_bytes());
        let page = quiz(&reader, &subjects(), &fields("answer=url-shortener&at=0&choice=2"));
        assert_eq!(to(&page), "/quiz.html?answer=url-shortener&at=0");
        assert!(reader.progress().unwrap().judged[0].right, "the modulo does nothing");
        for bad in ["answer=none&at=0&choice=2", "answer=url-shortener&at=99&choice=2", "at=0"] {
            let status = quiz(&reader, &subjects(), &fields(bad)).status();
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
    }

    #[test]
    fn a_broken_progress_is_an_error_and_stays_as_it_is() {
        let (folder, reader) = reader();
        let path = folder.path().join(".progress/progress.json");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "{").unwrap();
        let status = send(&reader, "action=begin&what=any").status();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn a_chapter_that_was_read_is_counted_if_there_is_such_a_chapter() {
        let (_folder, reader) = reader();
        assert_eq!(read(&reader, &subjects(), "jwt-auth").status(), StatusCode::NO_CONTENT);
        assert_eq!(read(&reader, &subjects(), "none").status(), StatusCode::NOT_FOUND);
        assert!(reader.progress().unwrap().read.contains("jwt-auth"));
    }
}
