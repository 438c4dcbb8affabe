//! What happens when a reader sends a form? The progress changes, and the browser is sent to the page that shows it.

use std::collections::BTreeMap;

use anyhow::Context;
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use interview::{
    chapter::Verdict,
    choice::Wish,
    export::export,
    outcome::Outcome,
    progress::{Judged, Progress, Story, judged},
    session::Input,
    subject::Subject,
};
use serde_json::json;
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

    /// The field's value; empty if there is none. A button comes after the fields of its form, and its value counts.
    pub fn one(&self, name: &str) -> &str {
        self.all(name).last().map_or("", String::as_str)
    }

    /// Whether there is such a field, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What the reader wrote; nothing if the form asks for no words.
    fn words(&self) -> Option<String> {
        let text = self.all("text").first()?;
        Some(text.replace("\r\n", "\n"))
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.one(name).parse().ok()
    }

    /// What the reader answered to a step.
    fn input(&self) -> Input {
        if let Some(choice) = self.number("choice") {
            return Input::Choice(choice);
        }
        if let Some(words) = self.words().filter(|words| !words.is_empty()) {
            return Input::Text(words);
        }
        let ticks: Vec<_> = self.all("tick").iter().filter_map(|tick| tick.parse().ok()).collect();
        if ticks.is_empty() { Input::Next } else { Input::Ticks(ticks.into_iter().collect()) }
    }
}

/// Where a form of the interview leads.
enum To {
    /// To the page that shows what was changed.
    Page(&'static str),
    /// Nowhere: a script has kept a draft, and the page stays.
    Kept,
    /// Nowhere: the form was made for an older step, and has these words.
    Old(String),
}

/// `POST /interview`: begins an interview, goes on with it, keeps a draft, pauses it or gives it up.
pub fn interview(
    reader: &Reader,
    subjects: &[Subject],
    fields: &Fields,
    now: OffsetDateTime,
) -> Response {
    let changed = reader.change(|progress| {
        match fields.one("action") {
            "begin" => {
                let question = Some(fields.one("question")).filter(|it| !it.is_empty());
                let wish = question.unwrap_or(fields.one("what"));
                progress.begin(&Wish::from(wish), subjects, now);
            }
            "next" => progress.begin_next(subjects, now),
            action => return move_on(progress, subjects, action, fields, now),
        }
        Ok(To::Page("interview.html"))
    });
    match changed {
        Ok(To::Page(page)) => shown(Ok(page)),
        Ok(To::Kept) => StatusCode::NO_CONTENT.into_response(),
        // As plain text, so that a reader without a script can copy the words.
        Ok(To::Old(words)) => {
            let text = format!(
                "This step was answered already, or the interview was ended: in another tab, in a terminal, or by a \
                 second click. Your words were not taken. Copy them if you need them:\n\n{words}\n"
            );
            (StatusCode::CONFLICT, text).into_response()
        }
        Err(error) => shown(Err::<&str, _>(error)),
    }
}

fn move_on(
    progress: &mut Progress,
    subjects: &[Subject],
    action: &str,
    fields: &Fields,
    now: OffsetDateTime,
) -> anyhow::Result<To> {
    let page = Ok(if action == "draft" { To::Kept } else { To::Page("interview.html") });
    let session = progress.current.as_mut().filter(|it| it.place() == fields.one("place"));
    let Some(session) = session else {
        // A form of an older step changes nothing. Its words are taken already, if it was sent twice.
        let words = fields.words().unwrap_or_default();
        let has_words = matches!(action, "take" | "draft") && !words.trim().is_empty();
        let is_lost = has_words && !was_said(progress, &words);
        return if is_lost { Ok(To::Old(words)) } else { page };
    };
    if action == "drop" {
        progress.give_up();
        return page;
    }
    // The words stay, whatever becomes of this form.
    if let Some(words) = fields.words() {
        session.draft = words;
    }
    match action {
        "draft" => session.here(now),
        "pause" => session.pause(now),
        "resume" => session.resume(now),
        "take" => {
            let subject = subjects.iter().find(|it| it.name == session.answer);
            let subject =
                subject.with_context(|| format!("there is no question {}", session.answer))?;
            if session.take(subject, &fields.input(), now).is_err() {
                return Ok(To::Page("interview.html?refused"));
            }
            if session.is_over() {
                let outcome = Outcome::of(session, subject, now);
                progress.finish(outcome)?;
                return Ok(To::Page("interview.html?result"));
            }
        }
        _ => {}
    }
    page
}

/// Whether the interview that goes on, or else the last one, has these words.
fn was_said(progress: &Progress, words: &str) -> bool {
    let last = progress.interviews.last().map(|outcome| &outcome.notes);
    let notes = progress.current.as_ref().map(|session| &session.notes).or(last);
    notes.is_some_and(|notes| {
        let said = notes.estimates.values().map(|guess| &guess.said);
        said.chain([&notes.questions, &notes.design, &notes.sum_up]).any(|it| it == words.trim())
    })
}

/// The progress for the interview's page. Time in which nobody was here does not count.
pub fn come_back(reader: &Reader, now: OffsetDateTime) -> anyhow::Result<Progress> {
    let progress = reader.progress()?;
    if !progress.current.as_ref().is_some_and(|session| session.is_away(now)) {
        return Ok(progress);
    }
    reader.change(|progress| {
        if let Some(session) = &mut progress.current {
            session.here(now);
        }
        Ok(progress.clone())
    })
}

/// A second click on the same sentence comes sooner than this.
const SECOND_CLICK: time::Duration = time::Duration::seconds(2);

/// `POST /quiz`: judges a sentence.
pub fn quiz(
    reader: &Reader,
    subjects: &[Subject],
    fields: &Fields,
    now: OffsetDateTime,
) -> Response {
    let subject = subjects.iter().find(|it| it.name == fields.one("answer"));
    let at = fields.number("at").unwrap_or(usize::MAX);
    let sentence = subject.and_then(|it| it.chapter.sentences.get(at));
    let said = fields.number("choice").and_then(|it| Verdict::ALL.get(it).copied());
    let (Some(subject), Some(sentence), Some(said)) = (subject, sentence, said) else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "there is no such sentence or verdict");
    };
    let changed = reader.change(|progress| {
        let one = judged(&subject.name, &sentence.says, said, sentence.verdict, now);
        let is_same = |last: &Judged| (&last.answer, &last.says) == (&one.answer, &one.says);
        let last = progress.judged.last().filter(|last| is_same(last));
        if last.is_none_or(|last| now - last.at > SECOND_CLICK) {
            progress.judged.push(one);
        }
        Ok(format!("quiz.html?answer={}&at={at}", subject.name))
    });
    shown(changed)
}

/// `POST /stories`: keeps a story, changes one or removes one.
pub fn stories(reader: &Reader, fields: &Fields) -> Response {
    let text = |name: &str| fields.one(name).trim().replace("\r\n", "\n");
    let story = Story {
        question: text("question"),
        situation: text("situation"),
        task: text("task"),
        action: text("action"),
        result: text("result"),
    };
    // To drop it silently would lose the reader's words.
    if story.question.is_empty() && story != Story::default() && fields.one("do") != "remove" {
        let words = "write the question that this story answers, and keep it again";
        return problem(StatusCode::UNPROCESSABLE_ENTITY, words);
    }
    shown(reader.change(|progress| {
        let stories = &mut progress.stories;
        let is_it = |at: &usize| stories.get(*at).is_some_and(|it| it.question == fields.one("of"));
        match fields.number("at").filter(is_it) {
            Some(at) if fields.one("do") == "remove" => {
                stories.remove(at);
            }
            // A form about a story that is gone removes nothing.
            None if fields.one("do") == "remove" => {}
            _ if story.question.is_empty() || stories.contains(&story) => {}
            Some(at) => stories[at] = story,
            None => stories.push(story),
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

/// `GET /progress/export.json`: everything that is remembered, for another machine.
pub fn progress(reader: &Reader) -> Response {
    match reader.progress().and_then(|progress| progress.text()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

/// `POST /progress/import`: adds what such a file has. Returns what was done, in words.
pub fn import(reader: &Reader, text: &str) -> Response {
    let other = match Progress::parse(text) {
        Ok(other) => other,
        Err(error) => {
            let words = format!("this is not a file that was downloaded here: {error:#}");
            return problem(StatusCode::UNPROCESSABLE_ENTITY, &words);
        }
    };
    match reader.change(|progress| Ok(progress.import(other))) {
        Ok(words) => Json(json!({ "detail": words })).into_response(),
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

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
    }

    fn send_at(second: i64, reader: &Reader, body: &str) -> Response {
        interview(reader, &subjects(), &Fields::parse(body.as_bytes()), at(second))
    }

    fn send(reader: &Reader, body: &str) -> Response {
        send_at(0, reader, body)
    }

    /// The hidden field that names the current step.
    fn place(reader: &Reader) -> String {
        format!("place={}", reader.progress().unwrap().current.unwrap().place())
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
    fn a_story_is_changed_and_removed_and_only_this_one() {
        let (_folder, reader) = reader();
        let send = |body: &str| {
            let response = stories(&reader, &Fields::parse(body.as_bytes()));
            assert_eq!(to(&response), "/stories.html");
            let stories = reader.progress().unwrap().stories.into_iter();
            stories.map(|it| (it.question, it.result)).collect::<Vec<_>>()
        };
        let told = |question: &str, result: &str| (question.to_owned(), result.to_owned());
        send("question=One&action=I+did&result=1");
        send("question=Two&result=2");
        let both = [told("One", "3"), told("Two", "2")];
        assert_eq!(send("at=0&of=One&question=One&result=3"), both);
        // Another tab has removed a story before it.
        assert_eq!(send("at=0&of=Two&do=remove"), both);
        assert_eq!(send("at=0&of=One&do=remove"), [told("Two", "2")]);
        assert_eq!(send("question="), [told("Two", "2")]);
    }

    #[test]
    fn a_story_without_a_question_is_refused_and_not_dropped() {
        let (_folder, reader) = reader();
        let fields = Fields::parse(b"question=+&situation=My+words");
        assert_eq!(stories(&reader, &fields).status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(reader.progress().unwrap().stories.is_empty());
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
                let body = format!("action=take&place={}&{answer}", session.place());
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
        let take = format!("action=take&{}&text=How+many", place(&reader));
        for _ in 0..2 {
            assert_eq!(to(&send(&reader, &take)), "/interview.html");
        }
        let session = reader.progress().unwrap().current.unwrap();
        assert_eq!((session.taken, &*session.notes.questions), (1, "How many"));
        send(&reader, "action=begin&question=jwt-auth");
        assert_eq!(reader.progress().unwrap().current.unwrap().answer, "url-shortener");
    }

    #[test]
    fn words_stay_when_the_reader_pauses_closes_the_page_or_is_refused() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&question=url-shortener");
        let draft = || reader.progress().unwrap().current.unwrap().draft;
        let place = place(&reader);
        for action in ["pause", "resume"] {
            // The form has the action of its main button too; the pressed one comes last.
            let body = format!("action=take&{place}&text={action}%0D%0Ait&action={action}");
            assert_eq!(to(&send(&reader, &body)), "/interview.html");
            assert_eq!(draft(), format!("{action}\nit"));
        }
        let kept = send(&reader, &format!("action=draft&{place}&text=more"));
        assert_eq!((kept.status(), &*draft()), (StatusCode::NO_CONTENT, "more"));
        // Another tab, in which nothing was written, only says that the reader is here.
        send(&reader, &format!("action=draft&{place}"));
        assert_eq!(draft(), "more");
        let refused = format!("action=take&{place}&text=mine&choice=1");
        assert_eq!(to(&send(&reader, &refused)), "/interview.html?refused");
        assert_eq!(draft(), "mine");
    }

    #[tokio::test]
    async fn words_for_an_older_step_are_given_back() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&question=url-shortener");
        let old = place(&reader);
        send(&reader, &format!("action=take&{old}&text=first"));
        let before = reader.progress().unwrap();
        for action in ["take", "draft", "pause", "drop"] {
            let response = send(&reader, &format!("action={action}&{old}&text=my+design"));
            let is_refused = ["take", "draft"].contains(&action);
            assert_eq!(response.status() == StatusCode::CONFLICT, is_refused, "{action}");
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert_eq!(body.ends_with("\n\nmy design\n"), is_refused, "{body}");
        }
        assert_eq!(reader.progress().unwrap(), before, "an old form changes nothing");
    }

    #[test]
    fn a_pause_stops_the_clock_and_only_the_page_of_an_interview_gives_it_up() {
        let (_folder, reader) = reader();
        send(&reader, "action=begin&question=url-shortener");
        let place = place(&reader);
        let is_paused = || reader.progress().unwrap().current.unwrap().clock.is_paused();
        send(&reader, &format!("action=pause&{place}"));
        assert!(is_paused());
        send(&reader, &format!("action=resume&{place}"));
        assert!(!is_paused());
        send(&reader, "action=drop");
        send(&reader, "action=drop&place=7-0");
        assert!(reader.progress().unwrap().current.is_some());
        send(&reader, &format!("action=drop&{place}"));
        assert!(reader.progress().unwrap().current.is_none());
    }

    #[test]
    fn a_night_does_not_count_on_the_pages_clock() {
        let (_folder, reader) = reader();
        send_at(0, &reader, "action=begin&question=url-shortener");
        let place = place(&reader);
        // The page says every few seconds that the reader is here; then the machine is switched off.
        for second in [15, 30] {
            send_at(second, &reader, &format!("action=draft&{place}&text=a"));
        }
        let day = 86_400;
        let session = come_back(&reader, at(day)).unwrap().current.unwrap();
        assert_eq!(session.clock.total(at(day + 5)).as_secs(), 35);
        assert_eq!(session.draft, "a");
        // A second page in the next moment changes nothing more.
        let again = come_back(&reader, at(day + 5)).unwrap().current.unwrap();
        assert_eq!(again, session);
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
        for (second, judged) in [(0, 1), (1, 1), (60, 2)] {
            let fields = fields("answer=url-shortener&at=0&choice=2");
            let page = quiz(&reader, &subjects(), &fields, at(second));
            assert_eq!(to(&page), "/quiz.html?answer=url-shortener&at=0");
            let progress = reader.progress().unwrap();
            assert_eq!(progress.judged.len(), judged, "a second click does not count");
            assert!(progress.judged[0].right, "the modulo does nothing");
        }
        for bad in ["answer=none&at=0&choice=2", "answer=url-shortener&at=99&choice=2", "at=0"] {
            let status = quiz(&reader, &subjects(), &fields(bad), at(90)).status();
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
