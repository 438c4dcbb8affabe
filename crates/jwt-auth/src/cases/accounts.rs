//! Who may come in: registering, logging in, and guessing.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use reqwest::Response;
use tokio::time::sleep;

use super::client::{Client, PASSWORD, credentials, tokens};
use conform::{
    case::Outcome,
    cases,
    expect::{expect, status_in},
    http::{header, one_wins, problem},
    target::{Target, eventually},
};

cases! {
    Plain a_taken_address_is_a_conflict_however_it_is_written: "POST /register: 409 for an address that has an account, in capitals too; a login takes both", "It is one person who typed the address twice, and needs one account.";
    Load an_address_wanted_by_twenty_at_once_becomes_one_account: "Of twenty who register one address at once, one gets 201 and the others 409", "A program that looks first and inserts afterwards lets two of them find it free.";
    Plain a_password_is_compared_to_its_last_character_whatever_it_holds: "128 characters of any script are a password, and each of them counts", "Some hashes stop at 72 bytes, and some programs at a NUL.";
    Plain a_wrong_password_and_an_unknown_address_get_the_same_answer: "POST /login: 401 with the same headers and the same body for a wrong password and for an unknown address", "Nobody learns from a login who has an account.";
    Plain guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait: "Five failures are free; then 429 with Retry-After, for an unknown address and for the right password too; after the wait the owner gets in", "Guessing is made slow, and nobody is locked out for good.";
    Plain a_password_is_one_however_it_is_typed: "A password with `ö` as one character is the one with `o` and two dots", "Keyboards differ. Without normalisation an owner is refused who has typed the right thing.";
    Load fifty_guesses_at_once_are_no_more_than_five: "Of fifty wrong guesses at once at one account, five get 401 and the others 429", "A program that counts after it has checked the password lets all fifty through: none has failed yet.";
}

const WRONG: &str = "a wrong password";

async fn a_taken_address_is_a_conflict_however_it_is_written(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("ataiachiiw");
    client.register(&email).await?;
    for email in [email.clone(), email.to_uppercase(), email.replacen('a', "A", 1)] {
        let response = client.post("register", &credentials(&email, PASSWORD)).await?;
        problem(response, 409).await?;
    }
    client.log_in(&email.to_uppercase()).await?;
    Ok(())
}

async fn an_address_wanted_by_twenty_at_once_becomes_one_account(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aawbtaobia");
    let body = credentials(&email, PASSWORD);
    let answers = target.post_together("register", &vec![body; 20]).await?;
    one_wins(&answers, 201, 409)?;
    client.log_in(&email).await?;
    Ok(())
}

async fn a_password_is_compared_to_its_last_character_whatever_it_holds(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let longest: String = "🦀🦞🦐🦑🐙🐚🐟🐠🐡🦈🐬🐳🐋🦭🦆🦉🦅".chars().cycle().take(128).collect();
    let words = "🦀🦞🦐🦑🐙🐚🐟🐠🐡🦈🐬🐳🐋🦭🦆";
    for (n, password) in
        [words, "пароль из двух слов", "  spaces count  ", &longest].into_iter().enumerate()
    {
        let email = client.email(&format!("apictilcwih{n}"));
        client
            .register_with(&email, password)
            .await
            .with_context(|| format!("with the password {password:.20}"))?;
        tokens(client.try_login(&email, password).await?).await?;
        let shorter: String = password.chars().take(password.chars().count() - 1).collect();
        for wrong in [shorter.as_str(), &format!("{shorter}x"), &format!("{password}\0"), ""] {
            let seen = status_in(&client.try_login(&email, wrong).await?, &[401, 422, 429]);
            seen.context("with a password that differs in its last character")?;
        }
    }
    Ok(())
}

async fn a_password_is_one_however_it_is_typed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (composed, decomposed) = ("ein schönes passörd", "ein scho\u{308}nes passo\u{308}rd");
    for (n, [first, then]) in [[composed, decomposed], [decomposed, composed]].iter().enumerate() {
        let email = client.email(&format!("apiohiit{n}"));
        client.register_with(&email, first).await?;
        tokens(client.try_login(&email, then).await?).await?;
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
    let what = "the same headers and body for a wrong password and for an unknown address";
    expect(answers.len() == 1, what, format!("{answers:?}"))
}

async fn guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let (owners, nobodys) = (client.email("gaoaasd"), client.email("gaoaasd-nobody"));
    client.register(&owners).await?;
    let slowed = tokio::try_join!(slowed_down(&client, &owners), slowed_down(&client, &nobodys))?;
    for (email, response) in [(&owners, slowed.0), (&nobodys, slowed.1)] {
        problem(response, 429)
            .await
            .with_context(|| format!("the right password for {email}, too early"))?;
    }
    let back = eventually("the owner gets in", async || {
        let response = client.try_login(&owners, PASSWORD).await?;
        Ok((response.status() != 429).then_some(response))
    });
    tokens(back.await?).await?;
    Ok(())
}

/// Guesses, and waits as told, until a wait is more than a second. What does the right password get then?
async fn slowed_down(client: &Client, email: &str) -> anyhow::Result<Response> {
    for guess in 0..12 {
        let response = client.try_login(email, WRONG).await?;
        if response.status() == 401 {
            continue;
        }
        let wait = header(&response, "retry-after").to_owned();
        problem(response, 429).await?;
        expect(guess >= 5, "five failures to be free", format!("429 after {guess}"))?;
        let asked = wait.parse().ok().filter(|wait: &u64| (1..=60).contains(wait));
        let wait = asked
            .with_context(|| format!("expected 1 to 60 seconds in Retry-After, got {wait:?}"))?;
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
    bail!("expected waits of more than a second in Retry-After, got none in 12 guesses")
}

async fn fifty_guesses_at_once_are_no_more_than_five(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("fgaoanmtf");
    client.register(&email).await?;
    let begun = Instant::now();
    let guess = |n| credentials(&email, &format!("wrong password {n}"));
    let answers = target.post_together("login", &(0..50).map(guess).collect::<Vec<_>>()).await?;
    // Waits may begin with 1, 2, 4 … seconds: on a slow machine some of them are over before all have been sent.
    let waits =
        (1..=6).take_while(|&n| begun.elapsed() >= Duration::from_secs((1 << n) - 1)).count();
    let count = |status: u16| answers.iter().filter(|(seen, _)| seen.status() == status).count();
    let (tried, slowed) = (count(401), count(429));
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    let got = format!("{tried} times 401, {slowed} times 429, {} others", 50 - tried - slowed);
    let five = tried + slowed == 50 && tried <= 5 + waits && (tried >= 5 || unsure);
    expect(five, "five times 401 and 45 times 429", got)
}
