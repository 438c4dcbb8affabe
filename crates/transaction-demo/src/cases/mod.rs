//! The bank's table of calls.

mod bad_input;
pub mod client;
mod races;

use reqwest::Method;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::Client;
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, integer, json_of, list, same_fields, status, text},
    http::{header, header_is, invalid, lives_and_is_ready, problem},
    target::Target,
};

cases! {
    Plain an_account_is_opened_and_can_be_looked_at: "POST /accounts: 201, Location and the account; GET: the same, times in RFC 3339 UTC", "Somebody who opens an account has to find it again, with what was paid in.";
    Plain a_transfer_moves_money: "POST /transfers: 201, Location and the transfer; what one account lost the other has", "That is what a bank is for, to the last cent.";
    Plain a_transfer_can_be_looked_at: "GET /transfers/{id}: 200 and the transfer as it was made", "A receipt.";
    Plain entries_come_in_pages_and_sum_to_the_balance: "GET /accounts/{id}/entries: the oldest first, in pages that `next` leads through", "A ledger grows for ever, and who reads on after the last entry must miss none.";
    Plain the_same_key_again_gets_the_same_answer_and_moves_nothing: "The same key and body again: 201 and the same answer, also when there is no money left", "A client that did not hear the answer asks again, and must not pay twice.";
    Plain the_same_key_with_another_body_is_refused: "The same key with another body: 422; keys differ by case", "It is a mistake of the client's, and must neither pay nor look as if it had.";
    Plain the_same_body_in_other_words_is_the_same: "Spaces and the order of the fields make no other body", "A client that builds its JSON anew is still the same client.";
    Plain more_than_there_is_cannot_be_paid: "A transfer of more than there is: 409, and nothing is moved", "Nobody is overdrawn, and the last cent can be spent.";
    Plain a_refusal_stays_the_answer_of_its_key: "After a 409, the same key gets 409 again, also when money has come", "A client that heard the refusal may have paid in another way by then.";
    Plain an_unknown_account_stays_the_answer_of_its_key: "After a 422 for an account that there is not, the key pays nothing more: 422 again, also for other values", "A first attempt that was late would pay whoever opens that account tomorrow.";
    Plain too_much_for_an_account_stays_the_answer_of_its_key: "After a 409 for more than an account can hold, the same key gets 409 again, also when there is room", "A client that heard the refusal may have paid in another way by then.";
    Plain a_body_that_is_never_good_does_not_use_up_the_key: "After a 422 that any bank at any time would give, the key can still be used", "The same body gets the same answer for ever, so there is nothing to be kept.";
    Plain an_opening_that_is_sent_again_is_one_account: "POST /accounts with the same key and body again: 201 and the same answer, also when the balance has changed; with another body: 422", "A client that did not hear the answer asks again, and must not pay in twice.";
    Plain an_account_holds_no_more_than_an_account_can: "A transfer after which an account would hold more than 9007199254740991: 409, and nothing is lost", "Beyond 2⁵³ − 1 readers of JSON see another number.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), races::cases(), bad_input::cases()].concat(),
    }
}

/// The most that an account can hold.
const MOST: i64 = 9_007_199_254_740_991;

async fn an_account_is_opened_and_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    for (owner, cents) in [("Ada", 12_345), ("Łukasz & Søn", 0), ("Max", 1_i64 << 52)] {
        let account = json!({ "owner": owner, "balance_cents": cents });
        let created = client.open_account(&account).await?;
        let location = header(&created, "location").to_owned();
        let body = json_of(created, 201).await?;
        same_fields(&body, &account, &["owner", "balance_cents"])?;
        ends_with("the header `Location`", &location, &format!("/accounts/{}", body["id"]))?;
        let at = text(&body, "created_at")?;
        let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
        expect(utc, "a time in RFC 3339 UTC in `created_at`", at)?;
        let shown = json_of(target.get(&format!("accounts/{}", body["id"])).await?, 200).await?;
        same_fields(&shown, &body, &["id", "owner", "balance_cents", "created_at"])?;
    }
    Ok(())
}

async fn a_transfer_moves_money(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10_000, 500).await?;
    let response = client.pay("atmm-1", (ada, bob), 2_500).await?;
    let location = header(&response, "location").to_owned();
    let body = json_of(response, 201).await?;
    ends_with("the header `Location`", &location, &format!("/transfers/{}", body["id"]))?;
    let sent = json!({ "from": ada, "to": bob, "amount_cents": 2_500 });
    same_fields(&body, &sent, &["from", "to", "amount_cents"])?;
    client.audit((ada, bob), (7_500, 3_000)).await?;
    // Back again, to the last cent.
    client.paid("atmm-2", (bob, ada), 3_000).await?;
    client.audit((ada, bob), (10_500, 0)).await
}

async fn a_transfer_can_be_looked_at(target: &Target) -> Outcome {
    let client = Client::of(target);
    let accounts = client.open_two(100, 0).await?;
    let created = json_of(client.pay("atcbla", accounts, 1).await?, 201).await?;
    let shown = json_of(target.get(&format!("transfers/{}", created["id"])).await?, 200).await?;
    same_fields(&shown, &created, &["id", "from", "to", "amount_cents"])
}

async fn entries_come_in_pages_and_sum_to_the_balance(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    for cents in 1..=6 {
        client.paid(&format!("ecipastb-{cents}"), (ada, bob), cents).await?;
    }
    // The opening is an entry too.
    let amounts = client.amounts(ada).await?;
    equal("the amounts of who paid", amounts, vec![1_000, -1, -2, -3, -4, -5, -6])?;
    equal("the amounts of who was paid", client.amounts(bob).await?, vec![1, 2, 3, 4, 5, 6])?;
    let (mut path, mut sizes, mut transfers) =
        (format!("/accounts/{ada}/entries?limit=4"), Vec::new(), Vec::new());
    loop {
        let page = json_of(target.get(&path).await?, 200).await?;
        let entries = list(&page, "entries")?;
        sizes.push(entries.len());
        transfers.extend(entries.iter().map(|entry| entry["transfer"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        expect(next != path, "`next` to lead to another page", &page)?;
        next.clone_into(&mut path);
    }
    equal("the numbers of entries on pages of four", sizes, vec![4, 3])?;
    // The first is the opening, which may be a transfer from the bank itself, or none.
    for transfer in &transfers[1..] {
        let transfer = json_of(target.get(&format!("transfers/{transfer}")).await?, 200).await?;
        same_fields(&transfer, &json!({ "from": ada, "to": bob }), &["from", "to"])?;
    }
    client.audit((ada, bob), (979, 21)).await
}

async fn the_same_key_again_gets_the_same_answer_and_moves_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(100, 0).await?;
    let first = client.pay("rent", (ada, bob), 60).await?;
    let location = header(&first, "location").to_owned();
    let first = json_of(first, 201).await?;
    for _ in 0..3 {
        // There would not be enough money for a second one.
        let again = client.pay("rent", (ada, bob), 60).await?;
        status(&again, 201)?;
        header_is(&again, "location", &location)?;
        equal("the answer for the same key", json_of(again, 201).await?, first.clone())?;
    }
    client.audit((ada, bob), (40, 60)).await?;
    equal("the amounts of who was paid", client.amounts(bob).await?, vec![60])?;
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
        let request = || {
            let request = target.request(Method::POST, "transfers").header("idempotency-key", &key);
            request.header("content-type", "application/json").body(body.clone())
        };
        json_of(target.send_patiently(request).await?.0, 201).await
    };
    let one = send(format!(r#"{{"from":{ada},"to":{bob},"amount_cents":5}}"#)).await?;
    let two = send(format!(" {{ \"amount_cents\" : 5, \"to\":{bob},\n\"from\":{ada} }} ")).await?;
    equal("the answer for the same key", two, one)?;
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
    equal("the amounts of who paid", client.amounts(ada).await?, vec![100, -100])
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

async fn an_unknown_account_stays_the_answer_of_its_key(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10, 0).await?;
    for (name, accounts, field) in
        [("uastaoik-to", (ada, MOST), "to"), ("uastaoik-from", (MOST, bob), "from")]
    {
        invalid(client.pay(name, accounts, 1).await?, field).await?;
        invalid(client.pay(name, accounts, 1).await?, field).await?;
        problem(client.pay(name, (ada, bob), 1).await?, 422).await?;
    }
    client.audit((ada, bob), (10, 0)).await
}

async fn too_much_for_an_account_stays_the_answer_of_its_key(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(MOST, 1).await?;
    problem(client.pay("tmfaastaoik", (bob, ada), 1).await?, 409).await?;
    client.paid("tmfaastaoik-room", (ada, bob), 100).await?;
    problem(client.pay("tmfaastaoik", (bob, ada), 1).await?, 409).await?;
    client.audit((ada, bob), (MOST - 100, 101)).await
}

async fn a_body_that_is_never_good_does_not_use_up_the_key(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10, 0).await?;
    invalid(client.pay("abtingdnuutk", (ada, ada), 1).await?, "to").await?;
    invalid(client.pay("abtingdnuutk", (ada, bob), 0).await?, "amount_cents").await?;
    client.paid("abtingdnuutk", (ada, bob), 1).await?;
    client.audit((ada, bob), (9, 1)).await
}

async fn an_opening_that_is_sent_again_is_one_account(target: &Target) -> Outcome {
    let client = Client::of(target);
    let bob = client.open(0).await?;
    for (name, cents) in [("aotisaioa-full", 100), ("aotisaioa-empty", 0)] {
        let key = client.key(name);
        let account = json!({ "owner": "Ada", "balance_cents": cents });
        let first = client.open_account_with(&key, &account).await?;
        let location = header(&first, "location").to_owned();
        let first = json_of(first, 201).await?;
        if cents > 0 {
            client.paid(name, (integer(&first, "id")?, bob), 60).await?;
        }
        let again = client.open_account_with(&key, &account).await?;
        header_is(&again, "location", &location)?;
        equal("the answer for the same key", json_of(again, 201).await?, first)?;
        let other = json!({ "owner": "Ada L.", "balance_cents": cents });
        problem(client.open_account_with(&key, &other).await?, 422).await?;
    }
    equal("the balance of who was paid", client.balance(bob).await?, 60)
}

async fn an_account_holds_no_more_than_an_account_can(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(MOST, 1).await?;
    problem(client.pay("aahnmtaac-1", (bob, ada), 1).await?, 409).await?;
    client.audit((ada, bob), (MOST, 1)).await?;
    client.paid("aahnmtaac-2", (ada, bob), MOST - 1).await?;
    client.audit((ada, bob), (1, MOST)).await
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
