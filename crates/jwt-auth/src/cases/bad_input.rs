//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::json;

use super::client::{Client, PASSWORD, credentials, tokens, unauthorized};
use conform::{
    bodies::{refused_unread, refuses_bad_bodies},
    case::Outcome,
    cases,
    expect::{expect, list},
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};

cases! {
    Plain an_address_that_is_none_is_refused: "POST /register and POST /login with what is no address: 422 that names email", "A typing error should be told, and not be counted as a guess.";
    Plain a_password_that_is_too_short_too_long_or_common_is_refused: "POST /register with a bad or very common password: 422 that names password; all mistakes at once", "What everybody uses is guessed first, and a client shows all that is wrong.";
    Plain a_password_of_a_megabyte_is_refused_unread: "A body of a megabyte: 413, or the connection is closed", "A password costs time by the byte: one of a megabyte would be an attack.";
    Plain what_is_no_refresh_token_is_refused: "POST /token/refresh: 401 for any text that is no refresh token, 422 for what is no text", "How a token looks inside is the business of the program that made it.";
    Plain a_logout_needs_an_access_token: "POST /logout and POST /logout/everywhere: 401 without an access token, and for a refresh token", "Nobody ends the session of somebody else. A refresh token is for one thing, so that its second use is noticed.";
    Plain a_body_that_is_none_of_ours_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_wrong_method_is_not_allowed_and_a_wrong_path_is_not_found: "A method that a path does not have: 405 with Allow; a path that there is not: 404", "It tells a client's author what the path is for.";
}

async fn an_address_that_is_none_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = format!("{}@example.com", "a".repeat(288));
    for email in ["", "ann", "@example.com", "ann@", "a b@example.com", "a\0@b.example", &long] {
        for path in ["register", "login"] {
            let response = client.post(path, &credentials(email, PASSWORD)).await?;
            invalid(response, "email")
                .await
                .with_context(|| format!("for the address {email:.20?}"))?;
        }
    }
    Ok(())
}

async fn a_password_that_is_too_short_too_long_or_common_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aptitstlocir");
    let (long, longer) = ("x".repeat(129), "🦀".repeat(600));
    for password in [
        "",
        "14 characters!",
        "12345678901234567890",
        "PasswordPassword",
        "with a \0 NUL inside",
        &long,
        &longer,
    ] {
        let response = client.post("register", &credentials(&email, password)).await?;
        invalid(response, "password")
            .await
            .with_context(|| format!("for the password {password:.20?}"))?;
    }
    for password in [&long, &longer] {
        invalid(client.try_login(&email, password).await?, "password").await?;
    }
    // Both mistakes at once.
    let response = client.post("register", &credentials("ann", "short")).await?;
    let problem = problem(response, 422).await?;
    let errors = list(&problem, "errors")?;
    for field in ["email", "password"] {
        let named = errors.iter().any(|error| error["field"] == field);
        expect(named, format!("both fields in `errors`, {field} too"), &problem)?;
    }
    Ok(())
}

async fn a_password_of_a_megabyte_is_refused_unread(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("apoamiru");
    for path in ["register", "login"] {
        let body = credentials(&email, &"x".repeat(1_000_000));
        refused_unread(target, target.request(Method::POST, path).json(&body), 413).await?;
    }
    client.register(&email).await
}

async fn what_is_no_refresh_token_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let pair = client.join(&client.email("winrtir")).await?;
    let unknown = URL_SAFE_NO_PAD.encode([7; 32]);
    let padded = format!("{}=", pair.refresh_token);
    let long = "a".repeat(4_000);
    for token in
        ["", "abc", "' or 1=1 --", "\0", &unknown, &padded, &long, &pair.access_token, "🦀"]
    {
        unauthorized(client.refresh(token).await?)
            .await
            .with_context(|| format!("for the token {token:.20?}"))?;
    }
    for token in [json!(null), json!(7), json!([pair.refresh_token])] {
        let body = json!({ "refresh_token": token });
        invalid(client.post("token/refresh", &body).await?, "refresh_token").await?;
    }
    tokens(client.refresh(&pair.refresh_token).await?).await?;
    Ok(())
}

async fn a_logout_needs_an_access_token(target: &Target) -> Outcome {
    let client = Client::of(target);
    let pair = client.join(&client.email("alnaat")).await?;
    for path in ["logout", "logout/everywhere"] {
        problem(target.ask(Method::POST, path).await?, 401).await?;
        problem(client.post(path, &json!({})).await?, 401).await?;
        problem(client.post(path, &json!({ "refresh_token": pair.refresh_token })).await?, 401)
            .await?;
        for token in ["x.y.z", &pair.refresh_token] {
            unauthorized(client.show(Method::POST, path, token).await?).await?;
        }
    }
    tokens(client.refresh(&pair.refresh_token).await?).await?;
    Ok(())
}

async fn a_body_that_is_none_of_ours_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("abtinooir");
    let pair = client.join(&email).await?;
    for (path, good) in [
        ("register", credentials(&client.email("abtinooir-new"), PASSWORD)),
        ("login", credentials(&email, PASSWORD)),
        ("token/refresh", json!({ "refresh_token": pair.refresh_token })),
    ] {
        refuses_bad_bodies(target, || target.request(Method::POST, path), &good).await?;
    }
    for (body, status) in [
        (r#"{"email":"c@example.com"}"#, 422),
        (r#"{"email":"c@example.com","password":null}"#, 422),
        (r#"{"email":"c@example.com","password":7}"#, 422),
        (r#"{"email":"c@example.com","password":"seven quiet otters","admin":true}"#, 422),
    ] {
        let request = target.request(Method::POST, "register");
        let request = request.header("content-type", "application/json").body(body);
        problem(target.send(request).await?, status).await?;
    }
    // Half a character. Some parsers of JSON refuse it, and others leave that to whoever looks at the field.
    let half = r#"{"email":"c@example.com","password":"seven quiet otters \ud83e"}"#;
    let request = target.request(Method::POST, "register");
    let request = request.header("content-type", "application/json").body(half);
    refused(target.send(request).await?, &[400, 422]).await
}

async fn a_wrong_method_is_not_allowed_and_a_wrong_path_is_not_found(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::GET, "register"),
            (Method::GET, "login"),
            (Method::PUT, "token/refresh"),
            (Method::GET, "logout"),
            (Method::DELETE, "logout/everywhere"),
            (Method::POST, "me"),
            (Method::POST, ".well-known/jwks.json"),
        ],
    )
    .await?;
    not_found(target, &["", "token", "users/1", ".well-known/jwks.json/x"]).await
}
