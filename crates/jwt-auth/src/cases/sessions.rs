//! How one stays in, and how one leaves: refreshing and logging out.

use anyhow::Context;
use reqwest::Method;

use super::{
    client::{Client, part, tokens, unauthorized},
    no_store,
};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, status},
    target::Target,
};

cases! {
    Plain a_refresh_gives_a_new_pair: "POST /token/refresh: 200 and a new pair, of the same session", "Users stay logged in although access tokens end soon.";
    Load two_tabs_that_refresh_at_once_are_not_an_attack: "One refresh token used twice within the grace: 200 twice, and both go on", "Two tabs wake together, or an answer is lost on its way; that must log nobody out.";
    Plain a_refresh_token_of_the_generation_before_the_last_has_no_grace: "A refresh token that is older by two refreshes: 401, and the newest one of its session gets 401 too", "Two people have the token: the user and a thief.";
    Plain a_logout_ends_one_session_and_its_access_token_lives_on: "POST /logout: 204, also again; the session's refresh tokens end, its access token does not", "Services verify access tokens without asking anybody, and that is the price. A client that repeats a logout must not be told that it failed.";
    Plain a_logout_everywhere_ends_all_sessions_of_the_user_and_no_other: "POST /logout/everywhere: 204, and all of the user's sessions end, and nobody else's", "A user who has lost a phone needs it.";
    Restart what_was_issued_before_a_kill_works_after_it: "SIGKILL: a refresh token that was given out still works, and an access token is still believed", "200 is a promise. Keys and sessions in memory would log everybody out with each deployment.";
    Restart what_was_revoked_before_a_kill_stays_revoked: "SIGKILL: a session that was ended, by its user or by a reuse, stays ended", "A thief must not get back in by waiting for the next deployment.";
}

async fn a_refresh_gives_a_new_pair(target: &Target) -> Outcome {
    let client = Client::of(target);
    let first = client.join(&client.email("argnp")).await?;
    let response = client.refresh(&first.refresh_token).await?;
    no_store(&response)?;
    let second = tokens(response).await?;
    let fresh = second.refresh_token != first.refresh_token;
    expect(fresh, "a new refresh token", "the old one")?;
    let fresh = second.access_token != first.access_token;
    expect(fresh, "a new access token", "the old one")?;
    for token in [&first.access_token, &second.access_token] {
        status(&client.me(token).await?, 200)
            .context("both access tokens are good until they end")?;
    }
    let sid = |token: &str| anyhow::Ok(part(token, 1)?["sid"].clone());
    equal("the claim `sid`", sid(&second.access_token)?, sid(&first.access_token)?)?;
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
    let two_tokens = one.refresh_token != two.refresh_token;
    expect(two_tokens, "another refresh token for each tab", "the same for both")?;
    // Whichever of the two the tabs go on with.
    let (one, two) =
        tokio::try_join!(client.refresh(&one.refresh_token), client.refresh(&two.refresh_token))?;
    let last = tokens(one).await?;
    tokens(two).await?;
    status(&client.me(&last.access_token).await?, 200)
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
    for pair in [&first, &second] {
        status(&client.log_out(&pair.access_token).await?, 204)?;
    }
    for pair in [&first, &second] {
        unauthorized(client.refresh(&pair.refresh_token).await?).await?;
        // The price of asking nobody.
        let lives = status(&client.me(&pair.access_token).await?, 200);
        lives.context("the access token of a session that was ended")?;
    }
    status(&client.log_out(&first.access_token).await?, 204).context("the same logout again")?;
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
    status(&everywhere.await?, 204)?;
    for pair in [&first, &second] {
        unauthorized(client.refresh(&pair.refresh_token).await?).await?;
    }
    // A login after it is another session.
    let third = client.log_in(&email).await?;
    for pair in [&bob, &third] {
        tokens(client.refresh(&pair.refresh_token).await?).await?;
    }
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
        status(&me, 200).context("an access token from before the kill")?;
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
    status(&client.log_out(&left.access_token).await?, 204)?;
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
