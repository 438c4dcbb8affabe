//! What did the reader expect? Before a run, a page asks for one check and one figure; afterwards it shows the
//! prediction, ours and yours.

use std::{cmp::Reverse, collections::BTreeSet, fs, path::Path};

use interview::{
    chapter::{Chapter, Sentence},
    progress::Prediction,
    said::{NoNumber, Said},
};
use lab::{
    Answer, Report,
    report::{escaped, number},
};
use serde_json::{Map, Value};
use time::OffsetDateTime;

/// A prediction. Each half may be skipped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predicted {
    /// A check, and whether it will hold.
    check: Option<(String, bool)>,
    /// A figure, and its value.
    figure: Option<(String, f64)>,
}

/// What a chapter says about its experiments.
#[derive(Debug, Default)]
pub struct Quotes {
    text: String,
    sentences: Vec<Sentence>,
}

impl Quotes {
    /// Reads the chapter. If it cannot be read, the book reports the problem.
    pub fn of(answer: &Answer) -> Self {
        let text = fs::read_to_string(Path::new(answer.folder).join("chapter.md"));
        Self::read(text.unwrap_or_default(), answer.name)
    }

    fn read(text: String, answer: &str) -> Self {
        let chapter = Chapter::parse(&text, answer);
        Self { text, sentences: chapter.map(|it| it.sentences).unwrap_or_default() }
    }

    /// The sentences that lead to an experiment, with their verdicts.
    fn verdicts(&self, experiment: &str) -> String {
        let leads = |it: &&Sentence| it.experiments.iter().any(|name| name == experiment);
        let verdicts = self.sentences.iter().filter(leads);
        verdicts.map(|it| format!("{} {}\n", it.says, it.reason)).collect()
    }

    /// What is worth a prediction: what a verdict quotes first, else what the chapter quotes first, else what has most
    /// words of the verdicts, else the first.
    fn best<'a, T>(
        &self,
        experiment: &str,
        all: &'a [T],
        name: impl Fn(&T) -> &str,
    ) -> Option<&'a T> {
        let verdicts = self.verdicts(experiment);
        let quoted = |text: &str| {
            let quoted = all.iter().filter_map(|it| Some((quote(text, experiment, name(it))?, it)));
            quoted.min_by_key(|(at, _)| *at).map(|(_, it)| it)
        };
        let words = words(&verdicts);
        let in_words = || {
            let common = |it: &&T| Reverse(self::words(name(it)).intersection(&words).count());
            all.iter().min_by_key(common)
        };
        quoted(&verdicts).or_else(|| quoted(&self.text)).or_else(in_words)
    }
}

/// Where a text quotes this figure or check.
fn quote(text: &str, experiment: &str, name: &str) -> Option<usize> {
    let mark = format!("<!-- {experiment}: {name}");
    let mut found = text.match_indices(&mark);
    let is_whole = |rest: &str| {
        [" -->", " (least) -->", " (most) -->"].iter().any(|end| rest.starts_with(end))
    };
    found.find(|(at, _)| is_whole(&text[at + mark.len()..])).map(|(at, _)| at)
}

/// The words of a text. Short ones say little.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !it.is_alphanumeric());
    words.filter(|word| word.chars().count() > 3).map(str::to_lowercase).collect()
}

/// The fields of the form. None of them is a parameter of an experiment.
const CHECK: &str = "predict-check";
const CHECK_OF: &str = "predict-check-of";
const FIGURE: &str = "predict-figure";
const FIGURE_OF: &str = "predict-figure-of";
const FIGURE_UNIT: &str = "predict-figure-unit";

impl Predicted {
    /// Takes the prediction out of what the page has sent.
    pub fn take(params: &mut Map<String, Value>) -> Result<Self, NoNumber> {
        let mut text = |name: &str| match params.remove(name) {
            Some(Value::String(text)) => text.trim().to_owned(),
            _ => String::new(),
        };
        let (check, of) = (text(CHECK), text(CHECK_OF));
        let check = match &*check {
            "holds" => Some((of, true)),
            "fails" => Some((of, false)),
            _ => None,
        };
        let (figure, of, unit) = (text(FIGURE), text(FIGURE_OF), text(FIGURE_UNIT));
        let figure = match &*figure {
            "" => None,
            said => Some((of, Said::parse(said)?.in_unit(&unit))),
        };
        Ok(Self { check, figure })
    }

    /// The fields that ask for it: about one check and one figure of our record.
    pub fn fields(ours: &Report, quotes: &Quotes) -> String {
        let experiment = &*ours.experiment;
        let check = quotes.best(experiment, &ours.checks, |it| &it.check).map(|check| {
            format!(
                "<input type=\"hidden\" name=\"{CHECK_OF}\" value=\"{of}\">\
                 <label><span>Will this check hold? <q>{of}: {expected}</q></span><select name=\"{CHECK}\">\
                 <option value=\"\">skip</option><option value=\"holds\">it holds</option>\
                 <option value=\"fails\">it fails</option></select></label>",
                of = escaped(&check.check),
                expected = escaped(&check.expected)
            )
        });
        let figure = quotes.best(experiment, &ours.figures, |it| &it.name).map(|figure| {
            let unit = escaped(&figure.unit);
            let in_unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
            format!(
                "<input type=\"hidden\" name=\"{FIGURE_OF}\" value=\"{of}\">\
                 <input type=\"hidden\" name=\"{FIGURE_UNIT}\" value=\"{unit}\">\
                 <label><span>About how large is this figure? <q>{of}</q>{in_unit}</span>\
                 <input name=\"{FIGURE}\" autocomplete=\"off\"></label>",
                of = escaped(&figure.name)
            )
        });
        let fields = check.into_iter().chain(figure).collect::<String>();
        if fields.is_empty() {
            return fields;
        }
        format!(
            "<fieldset class=\"predict\"><legend>Predict first (or skip it: press Run)</legend>{fields}</fieldset>"
        )
    }

    /// Prediction, ours and yours, side by side; nothing if the reader has skipped it.
    pub fn html(&self, ours: Option<&Report>, yours: &Report) -> String {
        let mut rows = String::new();
        if let Some((of, holds)) = &self.check {
            let words = |held: bool| if held { "holds" } else { "fails" };
            let seen = |report: &Report| {
                let check = report.checks.iter().find(|check| check.check == *of);
                check.map_or("–", |check| words(check.held)).to_owned()
            };
            rows += &row(of, words(*holds), ours.map(seen).as_deref(), &seen(yours));
        }
        if let Some((of, value)) = &self.figure {
            let seen = |report: &Report| {
                let figure = report.figures.iter().find(|figure| figure.name == *of);
                figure.map_or_else(
                    || "–".to_owned(),
                    |figure| format!("{} {}", number(figure.value), figure.unit),
                )
            };
            rows += &row(of, &number(*value), ours.map(seen).as_deref(), &seen(yours));
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "<div class=\"table-wrapper\"><table class=\"predicted\"><caption>Your prediction</caption><thead><tr><th>Of</th>\
             <th>You predicted</th><th>Ours</th><th>Yours</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    }

    /// As the progress keeps it; nothing if the reader has skipped it.
    pub fn kept(&self, answer: &str, experiment: &str, at: OffsetDateTime) -> Option<Prediction> {
        let Self { check, figure } = self.clone();
        (check.is_some() || figure.is_some()).then(|| Prediction {
            at,
            answer: answer.to_owned(),
            experiment: experiment.to_owned(),
            check,
            figure,
        })
    }
}

fn row(of: &str, predicted: &str, ours: Option<&str>, yours: &str) -> String {
    let cells =
        [of, predicted, ours.unwrap_or("–"), yours].map(|it| format!("<td>{}</td>", escaped(it)));
    format!("<tr>{}</tr>", cells.concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(held: bool, value: f64) -> Report {
        serde_json::from_value(json!({
            "answer": "sums", "experiment": "two", "claim": "", "params": {}, "build": "release",
            "servers": [], "seconds": 1.0, "text": [], "tables": [], "series": [],
            "figures": [{"name": "speed", "value": value, "unit": "/s"}],
            "checks": [{"check": "a < b", "expected": "4", "seen": "4", "held": held}],
        }))
        .unwrap()
    }

    #[test]
    fn what_a_verdict_quotes_is_asked_then_what_the_chapter_quotes_then_what_has_its_words() {
        let mut record = serde_json::to_value(report(true, 1.0)).unwrap();
        record["figures"] = ["tried", "believed", "seconds"]
            .map(|name| json!({"name": name, "value": 1.0, "unit": ""}))
            .to_vec()
            .into();
        record["checks"] = ["there were some", "a forged token is refused"]
            .map(|check| json!({"check": check, "expected": "4", "seen": "4", "held": true}))
            .to_vec()
            .into();
        let ours: Report = serde_json::from_value(record).unwrap();
        let asked = |reason: &str, design: &str| {
            let text = format!(
                "# A\n\n## The question\n\n> \"A?\"\n\n*Level: beginner*\n\n## Ask first\n\n\
                 | ask | because |\n|---|---|\n| a? | b |\n\n## Say it in two minutes\n\n\"A.\"\n\n\
                 ## The textbook answer, checked\n\n| everybody says | verdict | see |\n|---|---|---|\n\
                 | \"It works\" | **Wrong**: {reason} | [`two`](#sums-two) |\n\n## The design\n\n{design}\n\n\
                 ## Break it\n\n| what | shows | do |\n|---|---|---|\n| a | b | c |\n\n\
                 ## Follow-ups\n\n**Why?** So.\n\n## Sources\n"
            );
            let quotes = Quotes::read(text, "sums");
            assert_eq!(quotes.sentences.len(), 1);
            let name = quotes.best("two", &ours.figures, |it| &it.name).unwrap().name.clone();
            let check = quotes.best("two", &ours.checks, |it| &it.check).unwrap().check.clone();
            (name, check)
        };
        let pair = |figure: &str, check: &str| (figure.to_owned(), check.to_owned());
        let (first, second) = ("there were some", "a forged token is refused");
        let quote = "1<!-- two: believed --> of 1<!-- two: tried -->";
        assert_eq!(asked(quote, ""), pair("believed", first));
        assert_eq!(asked("a token", quote), pair("believed", second));
        assert_eq!(asked("in seconds", ""), pair("seconds", first));
        assert_eq!(asked("1<!-- one: believed -->", ""), pair("believed", first));
        assert_eq!(
            asked("1<!-- two: believed, median -->", "1<!-- two: seconds (most) -->"),
            pair("seconds", first)
        );
        assert_eq!(asked("no", ""), pair("tried", first));
    }

    fn sent(fields: Value) -> Result<Predicted, NoNumber> {
        let Value::Object(mut params) = fields else { panic!("an object") };
        let predicted = Predicted::take(&mut params);
        assert_eq!(params, Map::from_iter([("clients".to_owned(), json!("5"))]), "the rest stays");
        predicted
    }

    #[test]
    fn a_prediction_is_shown_beside_ours_and_yours() {
        let predicted = sent(json!({
            "clients": "5", "predict-check": "fails", "predict-check-of": "a < b",
            "predict-figure": "2k", "predict-figure-of": "speed",
        }));
        let predicted = predicted.unwrap();
        let html = predicted.html(Some(&report(true, 900.0)), &report(false, 800.0));
        for row in [
            "<td>a &lt; b</td><td>fails</td><td>holds</td><td>fails</td>",
            "<td>speed</td><td>2000</td><td>900 /s</td><td>800 /s</td>",
        ] {
            assert!(html.contains(row), "no {row} in {html}");
        }
        let kept = predicted.kept("sums", "two", OffsetDateTime::UNIX_EPOCH).unwrap();
        assert_eq!(kept.figure, Some(("speed".to_owned(), 2000.0)));
    }

    #[test]
    fn who_skips_it_sees_nothing_of_it() {
        let skipped = sent(json!({
            "clients": "5", "predict-check": "", "predict-check-of": "a < b",
            "predict-figure": " ", "predict-figure-of": "speed",
        }));
        let skipped = skipped.unwrap();
        assert_eq!(skipped, Predicted::default());
        assert_eq!(skipped.html(None, &report(true, 1.0)), "");
        assert_eq!(skipped.kept("sums", "two", OffsetDateTime::UNIX_EPOCH), None);
    }

    #[test]
    fn a_figure_is_predicted_in_its_own_unit() {
        let predicted = sent(json!({
            "clients": "5", "predict-figure": "0.2 s", "predict-figure-of": "latency",
            "predict-figure-unit": "ms",
        }));
        assert_eq!(predicted.unwrap().figure, Some(("latency".to_owned(), 200.0)));
    }

    #[test]
    fn a_figure_that_is_no_number_is_refused() {
        for said in ["much", "1e308 million"] {
            sent(json!({ "clients": "5", "predict-figure": said })).unwrap_err();
        }
    }
}
