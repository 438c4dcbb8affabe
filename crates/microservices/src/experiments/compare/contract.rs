//! What may a service rely on? What another one answers (a contract), and never its tables.
//!
//! Whoever calls a service writes down the calls that it makes and what it needs of the answers. The service's own
//! build tries them before it is deployed (Pact does the same).

use std::{collections::BTreeSet, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::module::Module;
use crate::peer::{CONTRACT, VERSION, says_json, whole};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of an answer, in bytes: many times the longest.
const MAX_BODY: usize = 1 << 20;

/// A question that somebody asks, and what it needs to hear.
#[derive(Clone, Debug)]
pub struct Interaction {
    /// Who asks.
    pub consumer: Module,
    /// Whom.
    pub provider: Module,
    /// What.
    pub question: Value,
    /// The answer has at least these fields, with these values. Further ones are the provider's own.
    pub needs: Value,
}

// ANCHOR: contract
/// What is relied on, in the order in which it can be tried: an order needs a product. An example with a value finds what
/// a schema does not: another unit, another rounding.
pub fn interactions() -> Vec<Interaction> {
    use Module::{Catalogue, Gateway, Orders, Payments, Pricing, Recommendations};
    let tea = json!({ "id": 1, "name": "tea", "cents": 1_000 });
    let order = json!({ "key": "contract", "customer": 1, "product": 1, "quantity": 3 });
    let charge = json!({ "key": "contract test", "customer": 1, "cents": 2_850 });
    let placed = json!({ "customer": 1, "product": 1, "quantity": 3, "cents": 2_850 });
    let nobody = i64::MAX;
    let price = |cents, quantity| json!({ "quote": { "cents": cents, "quantity": quantity } });
    let all = [
        (Gateway, Catalogue, json!({ "put": tea }), Value::Null),
        (Orders, Catalogue, json!({ "product": 1 }), tea.clone()),
        (Gateway, Catalogue, json!({ "products": [1, nobody] }), json!([tea])),
        (Orders, Pricing, price(1_000, 3), json!({ "cents": 2_850 })),
        (Gateway, Pricing, price(33, 3), json!({ "cents": 94 })),
        (Orders, Payments, json!({ "charge": charge }), json!({ "cents": 2_850 })),
        (Gateway, Payments, json!({ "known": [Uuid::nil()] }), json!([])),
        (Gateway, Orders, json!({ "place": order }), placed),
        (Gateway, Orders, json!({ "of": nobody }), json!([])),
        (Gateway, Orders, json!({ "lines": nobody }), json!([])),
        (Gateway, Recommendations, json!({ "with": 1 }), json!([])),
    ];
    let all = all.into_iter().map(|(consumer, provider, question, needs)| Interaction {
        consumer,
        provider,
        question,
        needs,
    });
    all.collect()
}

/// What a provider at this address does not keep of what is relied on. None: it may be deployed.
pub async fn broken(provider: Module, url: &str) -> reqwest::Result<Vec<String>> {
    let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let mut broken = Vec::new();
    for it in interactions().into_iter().filter(|it| it.provider == provider) {
        let path = format!("{url}/internal/{}", provider.name());
        let answer = http.post(path).json(&it.question).send().await?;
        let headers = answer.headers();
        let told = says_json(headers) && headers.get(CONTRACT).is_some_and(|it| it == VERSION);
        let status = answer.status();
        let body = whole(answer, MAX_BODY).await.unwrap_or_default();
        // What is no JSON is not `null`, which is an answer too.
        let seen = serde_json::from_slice::<Value>(&body).ok();
        let kept = seen.as_ref().is_some_and(|seen| covers(seen, &it.needs));
        if !(status.is_success() && told && kept) {
            let (consumer, asked, needs) = (it.consumer.name(), it.question, it.needs);
            broken.push(format!("{consumer} needs {needs} for {asked}, got {status} {seen:?}"));
        }
    }
    Ok(broken)
}

/// Whether what was seen has all that is needed.
fn covers(seen: &Value, needed: &Value) -> bool {
    match needed {
        Value::Object(fields) => fields.iter().all(|(name, value)| covers(&seen[name], value)),
        other => seen == other,
    }
}
// ANCHOR_END: contract

/// Each module with its source.
pub const SOURCES: [(Module, &str); 5] = [
    (Module::Catalogue, include_str!("../../catalogue.rs")),
    (Module::Pricing, include_str!("../../pricing.rs")),
    (Module::Orders, include_str!("../../orders.rs")),
    (Module::Payments, include_str!("../../payments.rs")),
    (Module::Recommendations, include_str!("../../recommendations.rs")),
];

// ANCHOR: foreign
/// The tables of other modules that this source names in its SQL.
pub fn foreign_tables(module: Module, source: &str) -> BTreeSet<String> {
    let words: Vec<_> = source.split_whitespace().collect();
    let after = |word: &str| ["from", "into", "update", "join", "table"].contains(&word);
    let named = words.windows(2).filter(|pair| after(pair[0].trim_start_matches(['"', '('])));
    let table = |word: &str| {
        let end = word.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
        let (schema, name) = word[..end.unwrap_or(word.len())].split_once('.')?;
        let is_schema = Module::SERVICES.iter().any(|it| it.name() == schema);
        (is_schema && schema != module.name()).then(|| format!("{schema}.{name}"))
    };
    named.filter_map(|pair| table(pair[1])).collect()
}
// ANCHOR_END: foreign

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_module_names_a_table_of_another_one() {
        for (module, source) in SOURCES {
            assert_eq!(foreign_tables(module, source), BTreeSet::new(), "{module:?}");
        }
    }

    #[test]
    fn a_foreign_table_is_found_wherever_a_statement_names_it() {
        for statement in [
            "\"select name from catalogue.products\"",
            "update catalogue.products set name = $1",
            "from orders.orders as o\n join catalogue.products on true",
            "with a as (delete from catalogue.products) select",
            "insert into catalogue.products(id) values ($1)",
        ] {
            let found = foreign_tables(Module::Orders, statement);
            assert_eq!(found, BTreeSet::from(["catalogue.products".to_owned()]), "{statement}");
        }
        for statement in ["select from orders.orders", "self.catalogue.product(call, from)"] {
            assert!(foreign_tables(Module::Orders, statement).is_empty(), "{statement}");
        }
    }

    #[test]
    fn what_is_not_needed_may_be_different() {
        let seen = json!({ "a": 1, "b": { "c": [1, 2], "d": 3 } });
        assert!(covers(&seen, &json!({ "b": { "c": [1, 2] } })));
        for needed in [json!({ "a": 2 }), json!({ "e": 1 }), json!({ "b": { "c": [1] } })] {
            assert!(!covers(&seen, &needed), "{needed}");
        }
    }
}
