//! What may be written, and what need not be read again? The versions of a user.

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status},
    http::{header, header_is, problem},
    target::Target,
};
use reqwest::Method;
use serde_json::json;

use super::client::{Client, MERGE_PATCH};

cases! {
    Plain whoever_has_it_already_gets_304: "GET with If-None-Match that holds the ETag, alone, in a list, weak, or *: 304 without a body; after a change 200", "What has not changed need not be sent again.";
    Plain a_change_says_which_version_it_is_for: "PUT and PATCH of a user that exists: 428 without If-Match, 412 with another version, and nothing is changed; DELETE: 412 too", "Of two who read and then write, the second would undo what the first has changed.";
    Plain if_match_may_hold_several_tags_and_never_a_weak_one: "If-Match with a list of ETags, or *: 200; with a weak one or with nonsense: 412", "RFC 9110: a write needs the strong comparison.";
    Plain a_list_that_has_not_changed_is_not_sent_again: "GET /users?email=… with the ETag that it had, if it had one: 304; after a change 200", "A page is larger than a user, so there is more to save.";
    Plain a_condition_for_nobody_creates_nobody: "PUT with If-Match for a user that is not there: 412; PATCH: 404", "If-Match says that there is something; so a deleted user does not come back by a late write.";
}

async fn whoever_has_it_already_gets_304(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let weak = format!("W/{}", ada.tag);
    let several = format!("\"none\", {}, \"other\"", ada.tag);
    for tags in [ada.tag.as_str(), &weak, &several, "*"] {
        let same = client.get(&ada.path, &[("if-none-match", tags)]).await?;
        status(&same, 304)?;
        header_is(&same, "etag", &ada.tag)?;
        equal("the body of a 304", same.text().await?, "")?;
    }
    let patch = (MERGE_PATCH, json!({ "name": "Ada L." }).to_string());
    status(&client.patch(&ada.path, patch, Some(&ada.tag)).await?, 200)?;
    let new = client.get(&ada.path, &[("if-none-match", &several)]).await?;
    equal("the name", json_of(new, 200).await?["name"].clone(), "Ada L.")?;
    let none = client.get(&ada.path, &[("if-none-match", "nonsense")]).await?;
    status(&none, 200)
}

async fn a_change_says_which_version_it_is_for(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let new = client.user("Second");
    let patch = || (MERGE_PATCH, json!({ "name": "Third" }).to_string());
    problem(client.put(&ada.path, &new, &[]).await?, 428).await?;
    problem(client.patch(&ada.path, patch(), None).await?, 428).await?;
    let put = client.put(&ada.path, &new, &[("if-match", &ada.tag)]).await?;
    let second = header(&put, "etag").to_owned();
    status(&put, 200)?;
    let late = client.user("Late");
    problem(client.put(&ada.path, &late, &[("if-match", &ada.tag)]).await?, 412).await?;
    problem(client.patch(&ada.path, patch(), Some(&ada.tag)).await?, 412).await?;
    let delete = client.request(Method::DELETE, &ada.path).header("if-match", &ada.tag);
    problem(client.send(delete).await?, 412).await?;
    let read = client.read(&ada.path).await?;
    equal("the name after changes that were refused", read.body["name"].clone(), "Second")?;
    equal("the ETag", read.tag, second.clone())?;
    status(&client.patch(&ada.path, patch(), Some(&second)).await?, 200)
}

async fn if_match_may_hold_several_tags_and_never_a_weak_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let weak = format!("W/{}", ada.tag);
    let bare = ada.tag.trim_matches('"').to_owned();
    for bad in [weak.as_str(), &bare, "\"none\"", "nonsense", "\"*\""] {
        let response = client.put(&ada.path, &client.user("Eve"), &[("if-match", bad)]).await?;
        problem(response, 412).await?;
    }
    let several = format!("\"none\", {}", ada.tag);
    for good in [several.as_str(), "*"] {
        let response = client.put(&ada.path, &client.user("Ada"), &[("if-match", good)]).await?;
        status(&response, 200)?;
    }
    Ok(())
}

async fn a_list_that_has_not_changed_is_not_sent_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let path = format!("users?include=orders&email={}", ada.body["email"].as_str().unwrap_or("?"));
    let read = client.get(&path, &[]).await?;
    let tag = header(&read, "etag").to_owned();
    status(&read, 200)?;
    if tag.is_empty() {
        return Ok(());
    }
    status(&client.get(&path, &[("if-none-match", &tag)]).await?, 304)?;
    client.order(&ada.path, "tea").await?;
    let read = client.get(&path, &[("if-none-match", &tag)]).await?;
    let orders = json_of(read, 200).await?["items"][0]["orders"].clone();
    expect(orders.as_array().is_some_and(|it| it.len() == 1), "one order", &orders)
}

async fn a_condition_for_nobody_creates_nobody(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    status(&client.delete(&ada.path).await?, 204)?;
    for tags in [ada.tag.as_str(), "*"] {
        let late = client.put(&ada.path, &client.user("Ada"), &[("if-match", tags)]).await?;
        problem(late, 412).await?;
        let patch = (MERGE_PATCH, json!({ "name": "Ada L." }).to_string());
        problem(client.patch(&ada.path, patch, Some(tags)).await?, 404).await?;
    }
    problem(client.get(&ada.path, &[]).await?, 404).await.map(drop)
}
