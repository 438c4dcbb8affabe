//! Who may change a link?

use anyhow::Context;
use reqwest::Response;
use serde_json::{Value, json};

use super::client::{Client, redirects};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status},
    http::{header, invalid, problem},
    target::{Target, eventually},
};

cases! {
    Plain only_the_edit_token_changes_or_deletes_a_link: "PATCH and DELETE /links/{code}: 401 without the edit token, 403 with another; the link stays as it is", "Codes are public. If the code were enough, anybody could send your readers elsewhere.";
    Plain a_shared_link_can_be_changed_by_nobody: "A link without alias and expiry has no edit_token: 401 without a token, 403 with any", "Several clients have it. None of them may take it from the others.";
    Plain a_changed_link_leads_elsewhere: "PATCH /links/{code}: 200 and the link. It leads to the new url, and what was not sent stays as it was", "Printed codes cannot be called back. A typing mistake in the URL can.";
    Plain an_expiry_can_be_changed_and_removed: "PATCH with expires_in_seconds: counted from now; null removes the expiry", "A sale that goes on needs its link for another week.";
    Plain a_bad_change_is_refused: "PATCH with a bad url or expiry, or another field: 422 that names it; the link stays as it is", "A change must not let in what a creation keeps out.";
}

/// Checks that the answer asks for a token (RFC 9110, section 11.6.1).
async fn asks_for_a_token(response: Response) -> Outcome {
    let scheme = header(&response, "www-authenticate").to_ascii_lowercase();
    expect(scheme.starts_with("bearer"), "`WWW-Authenticate: Bearer` with the 401", scheme)?;
    problem(response, 401).await.map(drop)
}

async fn only_the_edit_token_changes_or_deletes_a_link(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (url, alias) = (client.page("otetcodal"), client.alias("owned"));
    let (code, token) = client.create_owned(&json!({ "url": url, "alias": alias })).await?;
    let (_, another) = client
        .create_owned(
            &json!({ "url": url, "alias": client.alias("another"), "expires_in_seconds": 60 }),
        )
        .await?;
    let change = json!({ "url": client.page("otetcodal/stolen") });
    asks_for_a_token(client.delete(&code, None).await?).await.context("DELETE without a token")?;
    asks_for_a_token(client.change(&code, None, &change).await?)
        .await
        .context("PATCH without a token")?;
    for wrong in [&*another, "", "wrong", &token.to_uppercase(), &format!("{token}x")] {
        // An empty token may count as a missing one (401) or as a wrong one (403), but always in the same way.
        let delete = client.delete(&code, Some(wrong)).await?;
        let change = client.change(&code, Some(wrong), &change).await?;
        let expected = if wrong.is_empty() { change.status().as_u16() } else { 403 };
        problem(delete, expected).await.with_context(|| format!("with the token {wrong:?}"))?;
        problem(change, expected).await.with_context(|| format!("with the token {wrong:?}"))?;
    }
    equal("the destination of the link", client.destination(&code).await?, url)?;
    let shown = json_of(client.look_at(&code).await?, 200).await?;
    expect(shown.get("edit_token").is_none(), "no `edit_token` in GET /links/{code}", &shown)?;
    status(&client.delete(&code, Some(&token)).await?, 204)
}

async fn a_shared_link_can_be_changed_by_nobody(target: &Target) -> Outcome {
    let client = Client::of(target);
    let url = client.page("aslcbcbn");
    for expected in [201, 200] {
        let link = json_of(client.create(&json!({ "url": url })).await?, expected).await?;
        let token = link.get("edit_token").unwrap_or(&Value::Null);
        expect(token.is_null(), "no `edit_token` for a link that everybody gets", &link)?;
    }
    let code = client.shorten(&url).await?;
    let (_, token) =
        client.create_owned(&json!({ "url": url, "alias": client.alias("own") })).await?;
    asks_for_a_token(client.delete(&code, None).await?).await?;
    problem(client.delete(&code, Some(&token)).await?, 403).await?;
    redirects(&client.follow(&code).await?)
}

async fn a_changed_link_leads_elsewhere(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (old, new) = (client.page("aclle/old"), client.page("aclle/new"));
    let link = json!({ "url": old, "alias": client.alias("changed"), "expires_in_seconds": 600 });
    let created = json_of(client.create(&link).await?, 201).await?;
    let (code, token) = Client::owned(&created)?;
    equal("the destination before", client.destination(&code).await?, &*old)?;
    let changed = client.change(&code, Some(&token), &json!({ "url": new })).await?;
    let changed = json_of(changed, 200).await?;
    equal("the field `url`", changed["url"].clone(), &*new)?;
    for field in ["code", "short_url", "created_at", "expires_at"] {
        equal(&format!("the field `{field}`"), changed[field].clone(), created[field].clone())?;
    }
    equal("the destination afterwards", client.destination(&code).await?, new)
}

async fn an_expiry_can_be_changed_and_removed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let link = json!({ "url": client.page("aecbcar"), "expires_in_seconds": 600 });
    let (code, token) = client.create_owned(&link).await?;
    let never = client.change(&code, Some(&token), &json!({ "expires_in_seconds": null })).await?;
    let never = json_of(never, 200).await?;
    equal("the field `expires_at`", never["expires_at"].clone(), Value::Null)?;
    let soon = client.change(&code, Some(&token), &json!({ "expires_in_seconds": 1 })).await?;
    status(&soon, 200)?;
    eventually("a link that got one more second does not redirect any more", async || {
        Ok(redirects(&client.follow(&code).await?).is_err().then_some(()))
    })
    .await?;
    problem(client.follow(&code).await?, 410).await?;
    let again = client.change(&code, Some(&token), &json!({ "expires_in_seconds": 60 })).await?;
    problem(again, 410).await.map(drop).context("a link that has ended cannot be revived")
}

async fn a_bad_change_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let url = client.page("abcir");
    let link = json!({ "url": url, "alias": client.alias("bad") });
    let (code, token) = client.create_owned(&link).await?;
    for (change, field) in [
        (json!({ "url": "javascript:alert(1)" }), "url"),
        (json!({ "url": 7 }), "url"),
        (json!({ "expires_in_seconds": 0 }), "expires_in_seconds"),
        (json!({ "alias": "another" }), "alias"),
    ] {
        let response = client.change(&code, Some(&token), &change).await?;
        invalid(response, field).await.with_context(|| change.to_string())?;
    }
    equal("the destination of the link", client.destination(&code).await?, url)
}
