//! Who may come in: registering, logging in, and guessing.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use reqwest::Response;
use tokio::time::sleep;

use super::client::{Client, PASSWORD, credentials, tokens};
use conform::{
    case::Outcome,
    cases,
    http::{header, problem},
    target::{Target, eventually},
};

cases! {
    Plain a_taken_address_is_a_conflict_however_it_is_written: "409 for an address that has an account, in capitals too; a login takes both", "One person, who typed it twice, and not two accounts.";
    Load an_address_wanted_by_twenty_at_once_becomes_one_account: "Of twenty who register one address at once, one gets 201 and the others 409", "Look first and insert after, and two of them both find it free.";
    Plain a_password_is_compared_to_its_last_character_whatever_it_holds: "128 characters of any script are a password, and each of them counts", "Some hashes stop at 72 bytes, and some programs at a NUL.";
    Plain a_wrong_password_and_an_unknown_address_get_the_same_answer: "401 with the same headers and the same words", "Nobody learns from a login who has an account.";
    Plain guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait: "Five failures are free; then 429 with Retry-After, for an unknown address and for the right password too; after the wait the owner gets in", "Guessing is made slow, and nobody is locked out for good.";
    Load fifty_guesses_at_once_are_no_more_than_five: "Of fifty wrong guesses at once at one account, five get 401 and the others 429", "Count after the password was looked at, and none of the fifty has failed yet.";
}

const WRONG: &str = "a wrong password";

async fn a_taken_address_is_a_conflict_however_it_is_written(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("ataiachiiw");
    client.register(&email).await?;
    for email in [email.clone(), email.to_uppercase(), email.replacen('a', "A", 1)] {
        let response = client.post("register", &credentials(&email, PASSWORD)).await?;
        problem(response, 409).await.context(email)?;
    }
    client.log_in(&email.to_uppercase()).await?;
    Ok(())
}

async fn an_address_wanted_by_twenty_at_once_becomes_one_account(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aawbtaobia");
    let body = credentials(&email, PASSWORD);
    let answers = try_join_all((0..20).map(|_| async {
        let (response, unsure) = target.post_patiently("register", &body).await?;
        anyhow::Ok((response.status().as_u16(), unsure))
    }))
    .await?;
    let count = |status: u16| answers.iter().filter(|(seen, _)| *seen == status).count();
    let (created, taken) = (count(201), count(409));
    // Whoever was told to come back may have been the one, and not know it.
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    ensure!(created + taken == 20, "{answers:?}");
    ensure!(created == 1 || created == 0 && unsure, "{created} made an account");
    client.log_in(&email).await?;
    Ok(())
}

async fn a_password_is_compared_to_its_last_character_whatever_it_holds(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let longest = "🦀".repeat(128);
    for (n, password) in ["🦀🦞🦐🦑🐙🐚🐟🐠", "пароль из двух слов", "  spaces count  ", &longest]
        .into_iter()
        .enumerate()
    {
        let email = client.email(&format!("apictilcwih{n}"));
        client.register_with(&email, password).await.with_context(|| password.to_owned())?;
        tokens(client.try_login(&email, password).await?).await?;
        let shorter: String = password.chars().take(password.chars().count() - 1).collect();
        for wrong in [shorter.as_str(), &format!("{shorter}x"), &format!("{password}\0"), ""] {
            let status = client.try_login(&email, wrong).await?.status().as_u16();
            ensure!(matches!(status, 401 | 422 | 429), "{wrong:?} in place of it: {status}");
        }
    }
    Ok(())
}

async fn a_wrong_password_and_an_unknown_address_get_the_same_answer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let known = client.email("awpaauagtsa");
    client.register(&known).await?;
    let mut answers = HashSet::new();
    for email in [known, client.email("nobody")] {
        let response = client.try_login(&email, WRONG).await?;
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        answers.insert((headers, problem(response, 401).await?.to_string()));
    }
    ensure!(answers.len() == 1, "they differ: {answers:?}");
    Ok(())
}

async fn guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let (owners, nobodys) = (client.email("gaoaasd"), client.email("gaoaasd-nobody"));
    client.register(&owners).await?;
    let slowed = tokio::try_join!(slowed_down(&client, &owners), slowed_down(&client, &nobodys))?;
    for (email, response) in [(&owners, slowed.0), (&nobodys, slowed.1)] {
        problem(response, 429).await.with_context(|| format!("{email}, the right password"))?;
    }
    let back = eventually("the owner gets in", async || {
        let response = client.try_login(&owners, PASSWORD).await?;
        Ok((response.status() != 429).then_some(response))
    });
    tokens(back.await?).await?;
    Ok(())
}

/// Guesses, and waits as told, until the wait is more than a second. What does the right password get then?
async fn slowed_down(client: &Client, email: &str) -> anyhow::Result<Response> {
    for guess in 0..12 {
        let response = client.try_login(email, WRONG).await?;
        if response.status() == 401 {
            continue;
        }
        let wait = header(&response, "retry-after").to_owned();
        problem(response, 429).await?;
        ensure!(guess >= 5, "{email} is slowed down after {guess} failures");
        let wait: u64 = wait.parse().with_context(|| format!("Retry-After: {wait:?}"))?;
        ensure!((1..=60).contains(&wait), "Retry-After: {wait}");
        let asked = Instant::now();
        if wait > 1 {
            let right = client.try_login(email, PASSWORD).await?;
            // The header rounds up. If this machine took a second, the wait was over perhaps.
            if asked.elapsed() < Duration::from_secs(wait - 1) {
                return Ok(right);
            }
        }
        sleep(Duration::from_secs(wait)).await;
    }
    bail!("{email} can be guessed at without a wait of more than a second")
}

async fn fifty_guesses_at_once_are_no_more_than_five(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("fgaoanmtf");
    client.register(&email).await?;
    let begun = Instant::now();
    let answers = try_join_all((0..50).map(|n| {
        let guess = credentials(&email, &format!("wrong password {n}"));
        async move {
            let (response, unsure) = target.post_patiently("login", &guess).await?;
            anyhow::Ok((response.status().as_u16(), unsure))
        }
    }))
    .await?;
    // The waits are 1, 2, 4 … seconds: on a slow machine some of them are over before all have been sent.
    let waits =
        (1..=6).take_while(|&n| begun.elapsed() >= Duration::from_secs((1 << n) - 1)).count();
    let count = |status: u16| answers.iter().filter(|(seen, _)| *seen == status).count();
    let (tried, slowed) = (count(401), count(429));
    ensure!(tried + slowed == 50, "{answers:?}");
    ensure!(tried <= 5 + waits, "{tried} guesses were tried, {slowed} slowed, {waits} waits over");
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    ensure!(tried >= 5 || unsure, "only {tried} guesses were tried");
    Ok(())
}
