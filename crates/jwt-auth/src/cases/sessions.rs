//! How one stays in, and how one leaves: refreshing and logging out.

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use super::client::{Client, part, tokens, unauthorized};
use conform::{case::Outcome, cases, http::header, target::Target};

cases! {
    Plain a_refresh_gives_a_new_pair: "POST /token/refresh: 200 and a new pair, of the same session", "One stays logged in although access tokens are short.";
    Load two_tabs_that_refresh_at_once_are_not_an_attack: "One refresh token used twice within the grace: 200 twice, and both go on", "Two tabs wake together, or an answer is lost on its way; that must log nobody out.";
    Plain a_refresh_token_of_the_generation_before_the_last_has_no_grace: "A refresh token from before the last refresh but one: 401, and the whole family ends", "Whoever shows it has missed a refresh: a thief, or the user after the thief.";
    Plain a_logout_ends_one_session_and_its_access_token_lives_on: "POST /logout by either token: 204, also again; the session's refresh tokens end, its access token does not", "The price of asking nobody. A client that repeats a logout must not be told that it failed.";
    Plain a_logout_everywhere_ends_all_sessions_of_the_user_and_no_other: "POST /logout/everywhere: 204, and all of the user's sessions end; 401 for a refresh token that has ended", "For who has lost a phone. A token that is over must not be able to.";
    Restart what_was_issued_before_a_kill_works_after_it: "SIGKILL: a refresh token that was given out still works, and an access token is still believed", "200 is a promise. Keys and sessions in memory would log everybody out with each deployment.";
    Restart what_was_revoked_before_a_kill_stays_revoked: "SIGKILL: a session that was ended, by its user or by a reuse, stays ended", "A thief must not get back in by waiting for the next deployment.";
}

async fn a_refresh_gives_a_new_pair(target: &Target) -> Outcome {
    let client = Client::of(target);
    let first = client.join(&client.email("argnp")).await?;
    let response = client.refresh(&first.refresh_token).await?;
    ensure!(header(&response, "cache-control") == "no-store", "a cache may keep the tokens");
    let second = tokens(response).await?;
    ensure!(second.token_type == "Bearer" && second.expires_in == first.expires_in, "{second:?}");
    ensure!(second.refresh_token != first.refresh_token, "the refresh token is the same");
    ensure!(second.access_token != first.access_token, "the access token is the same");
    for token in [&first.access_token, &second.access_token] {
        ensure!(client.me(token).await?.status() == 200, "both live as long as they say");
    }
    let sid = |token: &str| anyhow::Ok(part(token, 1)?["sid"].clone());
    ensure!(sid(&first.access_token)? == sid(&second.access_token)?, "one login, one session");
    tokens(client.refresh(&second.refresh_token).await?).await?;
    Ok(())
}

async fn two_tabs_that_refresh_at_once_are_not_an_attack(target: &Target) -> Outcome {
    let client = Client::of(target);
    let first = client.join(&client.email("tttraoanaa")).await?;
    let (one, two) = tokio::try_join!(
        client.refresh(&first.refresh_token),
        client.refresh(&first.refresh_token)
    )?;
    let (one, two) = (tokens(one).await?, tokens(two).await?);
    ensure!(one.refresh_token != two.refresh_token, "both have one token");
    // Whichever of the two the tabs go on with.
    let (one, two) =
        tokio::try_join!(client.refresh(&one.refresh_token), client.refresh(&two.refresh_token))?;
    let last = tokens(one).await?;
    tokens(two).await?;
    ensure!(client.me(&last.access_token).await?.status() == 200);
    Ok(())
}

async fn a_refresh_token_of_the_generation_before_the_last_has_no_grace(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let first = client.join(&client.email("artotgbtlhng")).await?;
    let second = tokens(client.refresh(&first.refresh_token).await?).await?;
    let third = tokens(client.refresh(&second.refresh_token).await?).await?;
    unauthorized(client.refresh(&first.refresh_token).await?).await?;
    unauthorized(client.refresh(&third.refresh_token).await?).await
}

async fn a_logout_ends_one_session_and_its_access_token_lives_on(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aleosaiatlo");
    client.register(&email).await?;
    let (first, second) = (client.log_in(&email).await?, client.log_in(&email).await?);
    let other = client.log_in(&email).await?;
    // By either token.
    ensure!(client.log_out(&first.refresh_token).await?.status() == 204);
    ensure!(client.show(Method::POST, "logout", &second.access_token).await?.status() == 204);
    for pair in [&first, &second] {
        unauthorized(client.refresh(&pair.refresh_token).await?).await?;
        // The price of asking nobody.
        ensure!(
            client.me(&pair.access_token).await?.status() == 200,
            "its access token is refused"
        );
    }
    ensure!(client.log_out(&first.refresh_token).await?.status() == 204, "again, and no harm done");
    tokens(client.refresh(&other.refresh_token).await?).await?;
    Ok(())
}

async fn a_logout_everywhere_ends_all_sessions_of_the_user_and_no_other(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aleeasotuano");
    client.register(&email).await?;
    let (first, second) = (client.log_in(&email).await?, client.log_in(&email).await?);
    let bob = client.join(&client.email("aleeasotuano-bob")).await?;
    let everywhere = client.show(Method::POST, "logout/everywhere", &first.access_token);
    ensure!(everywhere.await?.status() == 204);
    for pair in [&first, &second] {
        unauthorized(client.refresh(&pair.refresh_token).await?).await?;
    }
    let bob = tokens(client.refresh(&bob.refresh_token).await?).await?;
    // A token that has ended can end nothing; one that has not can.
    let third = client.log_in(&email).await?;
    let dead = json!({ "refresh_token": first.refresh_token });
    unauthorized(client.post("logout/everywhere", &dead).await?).await?;
    let third = tokens(client.refresh(&third.refresh_token).await?).await?;
    let alive = json!({ "refresh_token": third.refresh_token });
    ensure!(client.post("logout/everywhere", &alive).await?.status() == 204);
    unauthorized(client.refresh(&third.refresh_token).await?).await?;
    tokens(client.refresh(&bob.refresh_token).await?).await?;
    Ok(())
}

async fn what_was_issued_before_a_kill_works_after_it(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("wwibakwai");
    client.register(&email).await?;
    let fresh = client.log_in(&email).await?;
    let refreshed =
        tokens(client.refresh(&client.log_in(&email).await?.refresh_token).await?).await?;
    target.restart().await?;
    for pair in [fresh, refreshed] {
        let me = client.me(&pair.access_token).await?;
        ensure!(me.status() == 200, "its access token: {}", me.text().await?);
        tokens(client.refresh(&pair.refresh_token).await?).await?;
    }
    client.log_in(&email).await?;
    Ok(())
}

async fn what_was_revoked_before_a_kill_stays_revoked(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("wwrbaksr");
    client.register(&email).await?;
    let (left, stolen) = (client.log_in(&email).await?, client.log_in(&email).await?);
    let other = client.log_in(&email).await?;
    ensure!(client.log_out(&left.refresh_token).await?.status() == 204);
    let second = tokens(client.refresh(&stolen.refresh_token).await?).await?;
    let third = tokens(client.refresh(&second.refresh_token).await?).await?;
    unauthorized(client.refresh(&stolen.refresh_token).await?).await?;
    target.restart().await?;
    for token in [left.refresh_token, stolen.refresh_token, third.refresh_token] {
        unauthorized(client.refresh(&token).await?).await?;
    }
    tokens(client.refresh(&other.refresh_token).await?).await?;
    Ok(())
}
