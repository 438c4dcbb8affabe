//! How long does a session last, and what ends it?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use conform::http::{header, lives_and_is_ready, problem};
use jwt_auth::{
    cases::client::{part, tokens, unauthorized},
    experiments::fixture::{self, CHEAP, Fixture},
    store::Store,
};
use lab::{
    Service,
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
    keys::Keys,
    stack::own::OwnServer,
};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::start;

lab::tests![
    a_token_is_refused_after_its_life_and_the_leeway,
    a_refresh_token_used_again_after_the_grace_ends_its_whole_family,
    a_refresh_token_that_is_too_old_is_refused,
    with_a_deny_list_a_revoked_sessions_access_tokens_end_at_once,
    while_the_deny_list_is_away_no_token_passes_and_then_they_do_again,
    a_deny_list_that_became_a_replica_is_left,
    the_service_says_that_it_lives_and_is_ready_and_stops_when_asked,
    a_refresh_that_cannot_be_signed_leaves_the_token_fresh,
    a_logout_denies_also_what_the_database_has_forgotten,
    a_logout_everywhere_denies_also_sessions_that_are_over,
    the_alarm_for_a_reused_refresh_token_names_the_user,
    a_session_ends_however_often_it_is_refreshed,
];

async fn a_token_is_refused_after_its_life_and_the_leeway() -> Outcome {
    let (_fixture, _child, client) =
        start(&["--access-seconds", "1", "--leeway-seconds", "1"]).await?;
    let tokens = client.join("ann@example.com").await?;
    ensure!(tokens.expires_in == 1);
    ensure!(client.me(&tokens.access_token).await?.status() == 200);
    let refused = eventually("the token ends", async || {
        let response = client.me(&tokens.access_token).await?;
        Ok((response.status() != 200).then_some(response))
    });
    unauthorized(refused.await?).await
}

async fn a_refresh_token_used_again_after_the_grace_ends_its_whole_family() -> Outcome {
    let (_fixture, _child, client) = start(&["--grace-seconds", "0.5"]).await?;
    let first = client.join("ann@example.com").await?;
    let other = client.log_in("ann@example.com").await?;
    let second = tokens(client.refresh(&first.refresh_token).await?).await?;
    // Within the grace this gives a pair, and changes nothing.
    let refused = eventually("the grace is over", async || {
        let response = client.refresh(&first.refresh_token).await?;
        Ok((response.status() != 200).then_some(response))
    });
    unauthorized(refused.await?).await?;
    unauthorized(client.refresh(&second.refresh_token).await?).await?;
    // Another login of the same user goes on.
    tokens(client.refresh(&other.refresh_token).await?).await?;
    Ok(())
}

async fn a_refresh_token_that_is_too_old_is_refused() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    let pair = client.join("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    sqlx::query("update sessions set expires_at = now()").execute(&pool).await?;
    pool.close().await;
    unauthorized(client.refresh(&pair.refresh_token).await?).await
}

async fn with_a_deny_list_a_revoked_sessions_access_tokens_end_at_once() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let deny = ["--deny-list", "--redis-prefix", keys.prefix(), "--grace-seconds", "0.1"];
    let (_fixture, _child, client) = start(&deny).await?;
    let first = client.join("ann@example.com").await?;
    let second = tokens(client.refresh(&first.refresh_token).await?).await?;
    let other = client.log_in("ann@example.com").await?;
    ensure!(client.log_out(&second.access_token).await?.status() == 204);
    // Every token of the session, not only the last.
    for token in [&first.access_token, &second.access_token] {
        unauthorized(client.me(token).await?).await?;
    }
    ensure!(client.me(&other.access_token).await?.status() == 200);
    // A theft ends them too.
    let next = tokens(client.refresh(&other.refresh_token).await?).await?;
    eventually("the grace is over", async || {
        Ok((client.refresh(&other.refresh_token).await?.status() == 401).then_some(()))
    })
    .await?;
    unauthorized(client.me(&next.access_token).await?).await?;
    // What is kept goes by itself when the tokens would have ended.
    let mut redis = keys.connection().await?;
    let claims = part(&next.access_token, 1)?;
    let key = format!("{}denied:{}", keys.prefix(), claims["sid"].as_str().context("sid")?);
    let left: i64 = redis::cmd("TTL").arg(key).query_async(&mut redis).await?;
    // And not sooner than the last verifier, by a clock that is behind by the leeway, believes it.
    let exp = claims["exp"].as_i64().context("exp")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let still_believed = exp + 2 * 30 + 1 - i64::try_from(now)?;
    ensure!((still_believed..=971).contains(&left), "{left} s, believed for {still_believed}");
    Ok(())
}

async fn while_the_deny_list_is_away_no_token_passes_and_then_they_do_again() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let proxy = Proxy::to_url(keys.url()).await?;
    let fixture = Fixture::fresh().await?;
    let service = fixture.serve().args(&CHEAP).env("REDIS_URL", proxy.url(keys.url())?);
    let deny = ["--deny-list", "--redis-prefix", keys.prefix()];
    let (_child, client) = fixture::start(service.args(&deny)).await?;
    let pair = client.join("ann@example.com").await?;
    ensure!(client.me(&pair.access_token).await?.status() == 200);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let response = client.show(Method::GET, "me", &pair.access_token).await?;
        ensure!(header(&response, "retry-after") == "1", "{fault:?}");
        problem(response, 503).await.with_context(|| format!("{fault:?}"))?;
        problem(client.target.get("readyz").await?, 503).await?;
        proxy.heal();
        eventually("tokens pass again", async || {
            Ok((client.me(&pair.access_token).await?.status() == 200).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn a_deny_list_that_became_a_replica_is_left() -> Outcome {
    // Of its own: nobody else's Redis may become a replica.
    let server = OwnServer::start(Service::Redis).await?;
    let url = server.url()?;
    let mut redis = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    let proxy = Proxy::to_url(&url).await?;
    let fixture = Fixture::fresh().await?;
    let service = fixture.serve().args(&CHEAP).env("REDIS_URL", proxy.url(&url)?);
    let (_child, client) = fixture::start(service.arg("--deny-list")).await?;
    let token = client.join("ann@example.com").await?.access_token;
    ensure!(client.me(&token).await?.status() == 200);
    let connections = proxy.connections();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut redis).await?;
    problem(client.show(Method::POST, "logout", &token).await?, 503).await?;
    // The next connection may lead to another server.
    eventually("the connection to the replica is left", async || {
        client.show(Method::GET, "me", &token).await?;
        Ok((proxy.connections() > connections).then_some(()))
    })
    .await?;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await?;
    ensure!(client.log_out(&token).await?.status() == 204);
    unauthorized(client.me(&token).await?).await
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_when_asked() -> Outcome {
    let (_fixture, mut child, client) = start(&[]).await?;
    lives_and_is_ready(&client.target).await?;
    let pair = client.join("ann@example.com").await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    // What was given out is good after a restart: the keys are in the database.
    child.restart().await?;
    ensure!(client.me(&pair.access_token).await?.status() == 200);
    tokens(client.refresh(&pair.refresh_token).await?).await?;
    Ok(())
}

/// Rotated and not signed, the client's next try would be taken for a theft.
async fn a_refresh_that_cannot_be_signed_leaves_the_token_fresh() -> Outcome {
    let (fixture, child, client) = start(&[]).await?;
    let pair = client.join("ann@example.com").await?;
    drop(child);
    let pool = fixture.database.pool().await?;
    let mut lock = pool.begin().await?;
    sqlx::query("lock table signing_keys in access exclusive mode").execute(&mut *lock).await?;
    let (_child, client) = fixture.start(&["--grace-seconds", "0.1"]).await?;
    let refresh = json!({ "refresh_token": pair.refresh_token });
    problem(client.target.post("token/refresh", &refresh).await?, 503).await?;
    lock.rollback().await?;
    pool.close().await;
    // Longer than the grace.
    sleep(Duration::from_millis(200)).await;
    let response = eventually("somebody signs", async || {
        let response = client.target.post("token/refresh", &refresh).await?;
        Ok((response.status() != 503).then_some(response))
    });
    tokens(response.await?).await?;
    Ok(())
}

async fn a_logout_denies_also_what_the_database_has_forgotten() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let deny = ["--deny-list", "--redis-prefix", keys.prefix(), "--refresh-seconds", "0.5"];
    let (fixture, _child, client) = start(&deny).await?;
    let pair = client.join("ann@example.com").await?;
    // The refresh token is over, and swept. The access token lives for minutes.
    let pool = fixture.database.pool().await?;
    sqlx::query("delete from refresh_tokens").execute(&pool).await?;
    pool.close().await;
    ensure!(client.me(&pair.access_token).await?.status() == 200);
    let logout = client.show(Method::POST, "logout", &pair.access_token).await?;
    ensure!(logout.status() == 204, "{}", logout.status());
    unauthorized(client.me(&pair.access_token).await?).await
}

/// An access token may outlive its session, and a logout denies the sessions whose rows it finds.
async fn a_logout_everywhere_denies_also_sessions_that_are_over() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let deny = ["--deny-list", "--redis-prefix", keys.prefix()];
    let (fixture, _child, client) = start(&deny).await?;
    client.join("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    let long_over = "update sessions set expires_at = now() - interval '3 days'";
    sqlx::query(long_over).execute(&pool).await?;
    let pair = client.log_in("ann@example.com").await?;
    let over = r#"
        update sessions set expires_at = now() - interval '1 minute'
        where expires_at > now()
    "#;
    sqlx::query(over).execute(&pool).await?;
    Store::new(fixture.database.url())?.sweep().await;
    let left = "select count(*) from sessions where expires_at < now() - interval '2 days'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await?;
    ensure!(left == 0, "nothing was swept");
    pool.close().await;
    ensure!(client.me(&pair.access_token).await?.status() == 200);
    let logout = client.show(Method::POST, "logout/everywhere", &pair.access_token).await?;
    ensure!(logout.status() == 204, "{}", logout.status());
    unauthorized(client.me(&pair.access_token).await?).await
}

async fn the_alarm_for_a_reused_refresh_token_names_the_user() -> Outcome {
    let (_fixture, child, client) = start(&["--grace-seconds", "0.1"]).await?;
    let first = client.join("ann@example.com").await?;
    tokens(client.refresh(&first.refresh_token).await?).await?;
    eventually("the grace is over", async || {
        Ok((client.refresh(&first.refresh_token).await?.status() == 401).then_some(()))
    })
    .await?;
    let claims = part(&first.access_token, 1)?;
    for claim in ["sub", "sid"] {
        let id = claims[claim].as_str().context(claim)?;
        eventually("the log names it", async || Ok(child.log().contains(id).then_some(()))).await?;
    }
    Ok(())
}

async fn a_session_ends_however_often_it_is_refreshed() -> Outcome {
    let (_fixture, _child, client) = start(&["--session-seconds", "1"]).await?;
    let mut pair = client.join("ann@example.com").await?;
    let begun = Instant::now();
    let refused = loop {
        let response = client.refresh(&pair.refresh_token).await?;
        if response.status() != 200 {
            break response;
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "it goes on");
        pair = tokens(response).await?;
    };
    unauthorized(refused).await
}
