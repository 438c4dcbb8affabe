//! What did the reader expect? Before a run, a page asks for one check and one figure; afterwards it shows the
//! prediction, ours and yours.

use interview::{
    progress::Prediction,
    said::{NoNumber, Said},
};
use lab::{
    Report,
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

    /// The fields that ask for it: about the first check and the first figure of our record.
    pub fn fields(ours: &Report) -> String {
        let check = ours.checks.first().map(|check| {
            format!(
                "<input type=\"hidden\" name=\"{CHECK_OF}\" value=\"{of}\">\
                 <label><span>Will this check hold? <q>{of}</q></span><select name=\"{CHECK}\">\
                 <option value=\"\">skip</option><option value=\"holds\">it holds</option>\
                 <option value=\"fails\">it fails</option></select></label>",
                of = escaped(&check.check)
            )
        });
        let figure = ours.figures.first().map(|figure| {
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
