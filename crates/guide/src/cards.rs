//! What is on the first page? What comes next, the plans, and a card for each question: its picture, its state and one
//! figure.

use std::{cell::RefCell, collections::BTreeMap};

use interview::subject::Subject;
use lab::{Answer, Need, report::escaped};
use time::OffsetDateTime;

use crate::{
    mode::Mode,
    plans,
    questions::{self, Level, QUESTIONS, Question},
    state::Standing,
};

/// What was looked for, and why it is not there.
type Needs = RefCell<Vec<(Need, Option<String>)>>;

/// What the cards are made of.
#[derive(Clone, Copy, Debug)]
pub struct Cards<'a> {
    /// All answers.
    pub answers: &'a [Answer],
    /// What can be asked about them.
    pub subjects: &'a [Subject],
    /// The drawings of their designs, by the answer's name.
    pub pictures: &'a BTreeMap<String, String>,
    /// Whether experiments can run here.
    pub mode: Mode,
}

impl Cards<'_> {
    /// The first page's inner part. Many experiments need the same, so it looks for each need once.
    pub fn html(&self, standing: &Standing, now: OffsetDateTime) -> String {
        let needs = RefCell::default();
        let (words, to) = standing.next(self.answers, self.subjects, now);
        let mut html = format!(
            "<p class=\"continue\"><a class=\"go\" href=\"{to}\">Continue</a> <span>{}</span></p>",
            escaped(&words)
        );
        html += &plans::html(self.answers, self.subjects, standing);
        html += FILTERS;
        for level in Level::ALL {
            let all = QUESTIONS.iter().filter(|question| question.level == level);
            let (here, later): (Vec<&Question>, Vec<&Question>) =
                all.partition(|question| self.answer(question.answer).is_some());
            let cards = here.iter().filter_map(|question| {
                let answer = self.answer(question.answer)?;
                let blocked = self.blocked(answer, &needs);
                let card = self.card(answer, question.title, question.shows, standing, &blocked);
                Some((blocked.len() == answer.experiments.len(), card))
            });
            let (cannot, can): (Vec<_>, Vec<_>) = cards.partition(|(is_blocked, _)| *is_blocked);
            let cards = |all: Vec<(bool, String)>| all.into_iter().map(|(_, card)| card);
            html += &section(level.name(), &cards(can).collect::<String>());
            if !cannot.is_empty() {
                html += &format!(
                    "<details class=\"later\"><summary>{} to read: its experiments cannot run here</summary>\
                     <div class=\"contents\">{}</div></details>",
                    cannot.len(),
                    cards(cannot).collect::<String>()
                );
            }
            let later = later
                .iter()
                .map(|question| format!("<li>{}: not written yet</li>", escaped(question.title)));
            let later: String = later.collect();
            if !later.is_empty() {
                html += &format!(
                    "<details class=\"later\"><summary>More to come</summary><ul>{later}</ul></details>"
                );
            }
        }
        let others = questions::others(self.answers);
        if !others.is_empty() {
            let cards = others.iter().map(|it| {
                let blocked = self.blocked(it, &needs);
                self.card(it, it.question, "", standing, &blocked)
            });
            html += &section("Other questions", &cards.collect::<String>());
        }
        html += keep(self.mode);
        let kind = if self.mode == Mode::Static { " data-static" } else { "" };
        format!("<guide-contents{kind}>{html}</guide-contents>")
    }

    fn answer(&self, name: &str) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.name == name)
    }

    /// Why some of its experiments cannot run here. A static book does not know.
    fn blocked(&self, answer: &Answer, needs: &Needs) -> Vec<String> {
        if self.mode == Mode::Static {
            return Vec::new();
        }
        let obstacle = |need: Need| {
            let mut known = needs.borrow_mut();
            if let Some((_, why)) = known.iter().find(|(known, _)| *known == need) {
                return why.clone();
            }
            let why = need.obstacle();
            known.push((need, why.clone()));
            why
        };
        let experiments = answer.experiments.iter();
        experiments.filter_map(|it| it.all_needs(answer).into_iter().find_map(obstacle)).collect()
    }

    fn card(
        &self,
        answer: &Answer,
        title: &str,
        shows: &str,
        standing: &Standing,
        blocked: &[String],
    ) -> String {
        let subject = self.subjects.iter().find(|it| it.name == answer.name);
        let minutes = subject.map_or(0, |it| it.sheet.kind.all_minutes());
        let level = subject.map_or("", |it| it.chapter.difficulty.name());
        let figure = subject.and_then(Subject::card).map_or_else(String::new, |(number, says)| {
            format!(
                "<p class=\"one-figure\"><strong>{}</strong> {}</p>",
                escaped(&number),
                escaped(says)
            )
        });
        let marks = standing.with(answer).marks();
        let names = ["read", "predicted", "run", "practised", "interviewed"];
        let marks = marks.iter().zip(names).map(|((words, done), name)| {
            let (class, mark) = if *done { ("done", "✓") } else { ("open", "○") };
            format!(
                "<li class=\"{class}\" data-mark=\"{name}\"><span aria-hidden=\"true\">{mark}</span> {words}\
                 <span class=\"sr\">{}</span></li>",
                if *done { ": done" } else { ": open" }
            )
        });
        let here = if blocked.is_empty() { "all" } else { "some" };
        let cannot = blocked.first().map_or_else(String::new, |why| {
            format!(
                "<p class=\"blocked\">{} of {} experiments cannot run here: {}</p>",
                blocked.len(),
                answer.experiments.len(),
                escaped(why)
            )
        });
        let picture = self.pictures.get(answer.name).map_or("", String::as_str);
        format!(
            "<article class=\"card\" data-answer=\"{name}\" data-level=\"{level}\" data-minutes=\"{minutes}\" data-here=\"{here}\">\
             <div class=\"picture\" aria-hidden=\"true\">{picture}</div>\
             <h3 id=\"card-{name}\"><a href=\"{name}.html\">{}</a></h3>\
             <p class=\"shows\">{}</p>{figure}<ul class=\"marks\">{}</ul>{cannot}</article>",
            escaped(title),
            escaped(shows),
            marks.collect::<String>(),
            name = answer.name,
        )
    }
}

/// A script shows them, because without one they do nothing.
const FILTERS: &str = "<form class=\"filters\" hidden><label>Level <select name=\"level\"><option value=\"\">all</option>\
    <option>beginner</option><option>intermediate</option><option>advanced</option></select></label> \
    <label>Interview <select name=\"minutes\"><option value=\"\">any</option><option value=\"15\">15 minutes</option>\
    <option value=\"45\">45 minutes</option></select></label> \
    <label><input type=\"checkbox\" name=\"here\"> everything runs here</label> \
    <span role=\"status\"></span></form>";

/// Where the progress is kept, and how it gets to another machine.
fn keep(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => {
            "<guide-progress><h2 id=\"your-progress\">Your progress</h2>\
             <p>It is in <code>.progress/</code>, which git ignores: a <code>git pull</code> leaves it alone. \
             <a href=\"progress/export.json\" download=\"progress.json\">Download it</a></p>\
             <p class=\"import\" hidden><label>Add a downloaded one: \
             <input type=\"file\" accept=\".json,application/json\"></label></p><p role=\"status\"></p></guide-progress>"
        }
        Mode::Static => {
            "<guide-progress hidden><h2 id=\"your-progress\">Your progress</h2>\
             <p>This browser remembers which chapters you have read. <button type=\"button\" class=\"small\">Download \
             it</button></p><p class=\"import\"><label>Add a downloaded one: \
             <input type=\"file\" accept=\".json,application/json\"></label></p><p role=\"status\"></p></guide-progress>"
        }
    }
}

fn section(heading: &str, cards: &str) -> String {
    let id = heading.to_lowercase().replace(' ', "-");
    format!("<h2 id=\"{id}\">{heading}</h2><div class=\"contents\">{cards}</div>")
}
