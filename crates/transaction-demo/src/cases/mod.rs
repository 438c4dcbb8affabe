//! The bank's table of calls.

mod bad_input;
pub mod client;
mod races;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::Client;
use conform::{
    case::{Outcome, Suite},
    cases,
    http::{header, invalid, lives_and_is_ready, problem},
    target::{Target, eventually},
};

cases! {
    Plain an_account_is_opened_and_can_be_looked_at: "POST /accounts: 201, Location and the account; GET: the same, times in RFC 3339 UTC", "Who opens an account has to find it again, with what was paid in.";
    Plain a_transfer_moves_money: "POST /transfers: 201, Location and the transfer; what one account lost the other has", "That is what a bank is for, to the last cent.";
    Plain a_transfer_can_be_looked_at: "GET /transfers/{id}: 200 and the transfer as it was made", "A receipt.";
    Plain entries_come_in_pages_and_sum_to_the_balance: "GET /accounts/{id}/entries: the oldest first, in pages that `next` leads through", "A ledger grows for ever, and who reads on after the last entry must miss none.";
    Plain the_same_key_again_gets_the_same_answer_and_moves_nothing: "The same key and body again: 201 and the same answer, also when there is no money left", "A client that did not hear the answer asks again, and must not pay twice.";
    Plain the_same_key_with_another_body_is_refused: "The same key with another body: 422; keys differ by case", "It is a mistake of the client's, and must neither pay nor look as if it had.";
    Plain the_same_body_in_other_words_is_the_same: "Spaces and the order of the fields make no other body", "A client that builds its JSON anew is still the same client.";
    Plain more_than_there_is_cannot_be_paid: "409, and nothing is moved", "Nobody is overdrawn, and the last cent can be spent.";
    Plain a_refusal_stays_the_answer_of_its_key: "409 again for the same key, also when money has come", "A client that heard the refusal may have paid in another way by then.";
    Plain a_mistake_does_not_use_up_the_key: "After a 422 the key can still be used", "Nothing was decided, so there is no answer to be kept.";
    Plain an_account_holds_no_more_than_an_account_can: "409, and nothing is lost", "Beyond 2⁵³ − 1 readers of JSON see another number.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "The balancer asks.";
}

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The server needs no options. Each case opens accounts of its own, and pays with keys that nobody else uses. \
    No account holds more than 2⁵³ − 1 cents, and a page of the ledger has 200 entries at most.";

/// The whole suite.
pub fn suite() -> Suite {
    Suite { needs: NEEDS, cases: [cases(), races::cases(), bad_input::cases()].concat() }
}

/// The most that an account can hold.
const MOST: i64 = 9_007_199_254_740_991;

async fn an_account_is_opened_and_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    for (owner, cents) in [("Ada", 12_345), ("Łukasz & Søn", 0), ("Max", 1_i64 << 52)] {
        let account = json!({ "owner": owner, "balance_cents": cents });
        let created = client.open_account(&account).await?;
        ensure!(created.status() == 201, "{}", created.text().await?);
        let location = header(&created, "location").to_owned();
        let body: Value = created.json().await?;
        ensure!(body["owner"] == owner && body["balance_cents"] == cents, "{body}");
        ensure!(location == format!("/accounts/{}", body["id"]), "Location: {location}: {body}");
        let at = body["created_at"].as_str().unwrap_or_default();
        ensure!(OffsetDateTime::parse(at, &Rfc3339)?.offset().is_utc(), "created_at: {at}");
        let shown: Value = target.get(&location).await?.json().await?;
        ensure!(shown == body, "{shown} is not {body}");
    }
    Ok(())
}

async fn a_transfer_moves_money(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10_000, 500).await?;
    let response = client.pay("atmm-1", (ada, bob), 2_500).await?;
    ensure!(response.status() == 201, "{}", response.text().await?);
    let location = header(&response, "location").to_owned();
    let body: Value = response.json().await?;
    ensure!(location == format!("/transfers/{}", body["id"]), "Location: {location}: {body}");
    ensure!(body["from"] == ada && body["to"] == bob && body["amount_cents"] == 2_500, "{body}");
    client.audit((ada, bob), (7_500, 3_000)).await?;
    // Back again, to the last cent.
    client.paid("atmm-2", (bob, ada), 3_000).await?;
    client.audit((ada, bob), (10_500, 0)).await
}

async fn a_transfer_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    let accounts = client.open_two(100, 0).await?;
    let created = client.pay("atcbla", accounts, 1).await?;
    let location = header(&created, "location").to_owned();
    let created: Value = created.json().await?;
    let shown: Value = target.get(&location).await?.json().await?;
    ensure!(shown == created, "{shown} is not {created}");
    Ok(())
}

async fn entries_come_in_pages_and_sum_to_the_balance(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    for cents in 1..=6 {
        client.paid(&format!("ecipastb-{cents}"), (ada, bob), cents).await?;
    }
    // The opening is an entry too.
    let amounts = client.amounts(ada).await?;
    ensure!(amounts == [1_000, -1, -2, -3, -4, -5, -6], "{amounts:?}");
    let amounts = client.amounts(bob).await?;
    ensure!(amounts == [1, 2, 3, 4, 5, 6], "{amounts:?}");
    let (mut path, mut sizes, mut transfers) =
        (format!("/accounts/{bob}/entries?limit=4"), Vec::new(), Vec::new());
    loop {
        let page: Value = target.get(&path).await?.json().await?;
        let entries = page["entries"].as_array().with_context(|| page.to_string())?;
        sizes.push(entries.len());
        transfers.extend(entries.iter().map(|entry| entry["transfer"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut path);
    }
    ensure!(sizes == [4, 2], "the pages have {sizes:?} entries");
    for transfer in transfers {
        let transfer: Value = target.get(&format!("transfers/{transfer}")).await?.json().await?;
        ensure!(transfer["from"] == ada && transfer["to"] == bob, "{transfer}");
    }
    client.audit((ada, bob), (979, 21)).await
}

async fn the_same_key_again_gets_the_same_answer_and_moves_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(100, 0).await?;
    let first = client.pay("rent", (ada, bob), 60).await?;
    ensure!(first.status() == 201, "{}", first.text().await?);
    let (location, first) = (header(&first, "location").to_owned(), first.json::<Value>().await?);
    for _ in 0..3 {
        // There would not be enough money for a second one.
        let again = client.pay("rent", (ada, bob), 60).await?;
        ensure!(again.status() == 201 && header(&again, "location") == location, "another answer");
        let again: Value = again.json().await?;
        ensure!(again == first, "{again} is not {first}");
    }
    client.audit((ada, bob), (40, 60)).await?;
    ensure!(client.amounts(bob).await? == [60]);
    // Another key is another payment.
    client.paid("rent-2", (ada, bob), 40).await?;
    client.audit((ada, bob), (0, 100)).await
}

async fn the_same_key_with_another_body_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let eve = client.open(1_000).await?;
    client.paid("k-tskwabir", (ada, bob), 10).await?;
    for (accounts, cents) in [((ada, bob), 11), ((ada, eve), 10), ((bob, ada), 10)] {
        problem(client.pay("k-tskwabir", accounts, cents).await?, 422).await?;
    }
    // A key is a name, letter by letter.
    client.paid("K-tskwabir", (ada, bob), 11).await?;
    client.audit((ada, eve), (979, 1_000)).await
}

async fn the_same_body_in_other_words_is_the_same(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let key = client.key("words");
    let send = async |body: String| {
        let response = eventually("the payment is decided", async || {
            let request = target.request(Method::POST, "transfers").header("idempotency-key", &key);
            let request = request.header("content-type", "application/json").body(body.clone());
            let response = target.send(request).await?;
            Ok((response.status() != 503).then_some(response))
        })
        .await?;
        ensure!(response.status() == 201, "{body}: {}", response.text().await?);
        Ok(response.json::<Value>().await?)
    };
    let one = send(format!(r#"{{"from":{ada},"to":{bob},"amount_cents":5}}"#)).await?;
    let two = send(format!(" {{ \"amount_cents\" : 5, \"to\":{bob},\n\"from\":{ada} }} ")).await?;
    ensure!(one == two, "{one}, {two}");
    client.audit((ada, bob), (995, 5)).await
}

async fn more_than_there_is_cannot_be_paid(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(100, 0).await?;
    problem(client.pay("mttcbp-1", (ada, bob), 101).await?, 409).await?;
    problem(client.pay("mttcbp-2", (bob, ada), 1).await?, 409).await?;
    client.audit((ada, bob), (100, 0)).await?;
    client.paid("mttcbp-3", (ada, bob), 100).await?;
    problem(client.pay("mttcbp-4", (ada, bob), 1).await?, 409).await?;
    ensure!(client.amounts(ada).await? == [100, -100]);
    Ok(())
}

async fn a_refusal_stays_the_answer_of_its_key(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10, 1_000).await?;
    problem(client.pay("early", (ada, bob), 50).await?, 409).await?;
    client.paid("wages", (bob, ada), 500).await?;
    problem(client.pay("early", (ada, bob), 50).await?, 409).await?;
    problem(client.pay("early", (ada, bob), 5).await?, 422).await?;
    client.paid("late", (ada, bob), 50).await?;
    client.audit((ada, bob), (460, 550)).await
}

async fn a_mistake_does_not_use_up_the_key(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10, 0).await?;
    invalid(client.pay("amdnuutk", (ada, MOST), 1).await?, "to").await?;
    invalid(client.pay("amdnuutk", (MOST, bob), 1).await?, "from").await?;
    invalid(client.pay("amdnuutk", (ada, bob), 0).await?, "amount_cents").await?;
    client.paid("amdnuutk", (ada, bob), 1).await?;
    client.audit((ada, bob), (9, 1)).await
}

async fn an_account_holds_no_more_than_an_account_can(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(MOST, 1).await?;
    problem(client.pay("aahnmtaac-1", (bob, ada), 1).await?, 409).await?;
    ensure!(client.balances((ada, bob)).await? == (MOST, 1), "something is lost");
    client.paid("aahnmtaac-2", (ada, bob), MOST - 1).await?;
    client.audit((ada, bob), (1, MOST)).await
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await?;
    Ok(())
}
