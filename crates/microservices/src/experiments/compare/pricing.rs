//! What else may stand in the place of pricing? The next version, one that breaks the contract, and programs that do
//! anything but answer.

use axum::body::{Body, Bytes};
use axum::response::{Html, IntoResponse, Response};
use axum::{Json, Router, routing::get, routing::post};
use futures_util::stream;
use serde_json::{Value, json};

use crate::peer::VERSION;
use crate::pricing::{Ask, Question};

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The same, with a further field
    Next,
    /// The same in another unit: hundredths of a cent
    OtherUnit,
    /// Another rounding: half a cent is ours
    OtherRounding,
    /// 200, and a page that says that there was an error
    ErrorPage,
    /// 200, and nonsense that says it is JSON
    Garbage,
    /// JSON that says it is text
    WrongType,
    /// JSON as of another contract
    WrongContract,
    /// A body without an end
    Endless,
}

/// Those that are no pricing at all.
pub const NONSENSE: [Other; 5] =
    [Other::ErrorPage, Other::Garbage, Other::WrongType, Other::WrongContract, Other::Endless];

impl Other {
    /// The program.
    pub fn router(self) -> Router {
        Router::new()
            .route("/internal/pricing", post(move |Json(it)| async move { self.answer(it) }))
            .route("/internal/about", get(move || async move { self.about() }))
    }

    fn about(self) -> Json<Value> {
        let contract = if self == Self::WrongContract { "2" } else { VERSION };
        Json(json!({ "version": "0.2.0", "contract": contract }))
    }

    fn answer(self, Ask::quote(question): Ask) -> Response {
        let Question { cents, quantity } = question;
        let percent = if quantity >= 10 {
            90
        } else if quantity >= 3 {
            95
        } else {
            100
        };
        let hundredths = cents * quantity * percent;
        let quote = |cents: i64| json!({ "cents": cents });
        let contract = [("x-contract", "1")];
        match self {
            Self::Next => {
                let mut next = quote(hundredths / 100);
                next["rule"] = json!(format!("{percent} %"));
                (contract, Json(next)).into_response()
            }
            Self::OtherUnit => (contract, Json(quote(hundredths))).into_response(),
            Self::OtherRounding => (contract, Json(quote((hundredths + 99) / 100))).into_response(),
            Self::ErrorPage => (contract, Html("<h1>Something went wrong</h1>")).into_response(),
            Self::Garbage => {
                let kind = [("content-type", "application/json")];
                (contract, kind, "\u{fffd}{{{").into_response()
            }
            Self::WrongType => {
                let kind = [("content-type", "text/plain")];
                (contract, kind, quote(hundredths / 100).to_string()).into_response()
            }
            Self::WrongContract => {
                ([("x-contract", "2")], Json(quote(hundredths / 100))).into_response()
            }
            Self::Endless => {
                let part = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 16 << 10]));
                let body = Body::from_stream(stream::repeat_with(part));
                let kind = [("content-type", "application/json")];
                (contract, kind, body).into_response()
            }
        }
    }
}
