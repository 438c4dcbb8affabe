//! Who is one client? Nothing that a client writes must make it another one.

use anyhow::ensure;
use lab::harness::Outcome;
use rate_limiter::{cases::told::units_left, experiments::fixture::start_in_memory};

lab::tests![
    users_have_their_own_quota_and_invented_api_keys_do_not,
    a_forged_header_buys_nothing,
    behind_a_trusted_proxy_each_client_has_its_own_quota,
    headers_that_cannot_be_read_are_ignored,
];

async fn users_have_their_own_quota_and_invented_api_keys_do_not() -> Outcome {
    let users = ["--user", "ada:one", "--user", "ada:two", "--user", "bob:three", "--limit", "2"];
    let (_child, client) = start_in_memory(&users).await?;
    for (key, expected) in [("one", 2), ("two", 0), ("three", 2)] {
        let mut passed = 0;
        for _ in 0..4 {
            passed += u64::from(client.hello_with("x-api-key", key).await?.status() == 200);
        }
        ensure!(passed == expected, "{passed} passed with key {key}");
    }
    let mut invented = 0;
    for n in 0..50 {
        let key = format!("invented-{n}");
        invented += u64::from(client.hello_with("x-api-key", key).await?.status() == 200);
    }
    ensure!(invented == 2, "{invented} passed with invented keys");
    Ok(())
}

async fn a_forged_header_buys_nothing() -> Outcome {
    let (_child, client) = start_in_memory(&["--limit", "5"]).await?;
    let mut passed = 0;
    for n in 0..60 {
        let (name, value) = match n % 3 {
            0 => ("x-forwarded-for", format!("192.0.2.{n}")),
            1 => ("forwarded", format!("for=192.0.2.{n}")),
            _ => ("x-real-ip", format!("192.0.2.{n}")),
        };
        passed += u64::from(client.hello_with(name, &value).await?.status() == 200);
    }
    ensure!(passed == 5, "{passed} passed");
    Ok(())
}

async fn behind_a_trusted_proxy_each_client_has_its_own_quota() -> Outcome {
    let trusted = ["--limit", "1", "--trusted-proxy", "127.0.0.0/8"];
    let (_child, client) = start_in_memory(&trusted).await?;
    for (value, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("198.51.100.7, 192.0.2.1", 429),
        ("192.0.2.1:4711", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("[2001:db8::2]:80", 429),
        ("2001:db8:0:1::1", 200),
        ("::ffff:192.0.2.2", 429),
    ] {
        let seen = client.hello_with("x-forwarded-for", value).await?.status();
        ensure!(seen == status, "{value}: {seen}");
    }
    let forwarded = [&trusted[..], &["--proxy-header", "forwarded"]].concat();
    let (_child, client) = start_in_memory(&forwarded).await?;
    for (value, status) in [
        ("for=192.0.2.1", 200),
        ("for=192.0.2.1", 429),
        ("for=192.0.2.3;proto=https", 200),
        ("For=\"192.0.2.3:80\"", 429),
        ("for=\"[2001:db8::1]\"", 200),
        ("for=\"[2001:db8::7]\"", 429),
        ("for=192.0.2.99, for=192.0.2.3", 429),
    ] {
        let seen = client.hello_with("forwarded", value).await?.status();
        ensure!(seen == status, "{value}: {seen}");
    }
    Ok(())
}

async fn headers_that_cannot_be_read_are_ignored() -> Outcome {
    let (_child, client) = start_in_memory(&[
        "--limit",
        "100",
        "--trusted-proxy",
        "127.0.0.0/8",
        "--user",
        "ada:secret",
    ])
    .await?;
    let long = vec!["192.0.2.1"; 10_000].join(", ") + ", unknown";
    let hops = vec!["127.0.0.1"; 10_000].join(",");
    let mut sent = 0;
    for name in ["x-forwarded-for", "forwarded", "x-api-key"] {
        for value in [
            "",
            ",",
            ",,,",
            "unknown",
            "_hidden",
            "for=_hidden",
            "for=unknown",
            "for=",
            "=",
            ";;;",
            "\"",
            "for=\"",
            "999.999.999.999",
            "1.2.3",
            "[::1",
            "::1]:80",
            "1.2.3.4:99999",
            "1.2.3.4:-1",
            "1.2.3.4%eth0",
            "localhost",
            "'; drop table",
            "0x7f000001",
            "2130706433",
            "{}",
            "*",
            &long,
            &hops,
        ] {
            let seen = client.hello_with(name, value).await?.status();
            sent += 1;
            ensure!(seen == 200, "{name}: {value:.40}: {seen}");
        }
        let response = client.hello_with(name, b"\xff\xfe, \xff").await?;
        ensure!(response.status() == 200, "{name} that is no text");
        sent += 1;
    }
    // All requests came from the same client: the peer, because we know no other address.
    let response = client.hello().await?;
    let left = units_left(&response)?;
    ensure!(left == 100 - sent - 1, "{left} left after {sent}: somebody got a quota of their own");
    Ok(())
}
