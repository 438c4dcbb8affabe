//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::{refused_unread, refuses_bad_bodies},
    case::Outcome,
    cases,
    expect::{equal, expect, status, status_in},
    http::{header, invalid, not_allowed, not_found, problem},
    target::Target,
};
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method, header::HeaderValue};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::{ADA, Client, id};

cases! {
    Plain a_request_without_the_right_key_is_refused: "Without `Authorization`, with another key or scheme, or with two: 401 and WWW-Authenticate, for every method", "With two, another program might believe the other one.";
    Plain the_scheme_may_be_written_in_any_case: "`bearer`, `BEARER`: as `Bearer`", "RFC 9110 says so, and clients do so.";
    Plain a_bad_id_from_outside_is_not_taken: "An X-Request-Id that is too long, empty, there twice, or not plain: another one comes back", "It goes into log lines and into headers of other services.";
    Plain a_line_break_in_an_id_never_comes_back: "An X-Request-Id with CR LF, raw or encoded: 400, or another id; and no header of the client's making in the answer", "Otherwise a stranger writes our headers and our log.";
    Plain a_body_that_is_no_note_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_text_that_cannot_be_is_named: "A text that is blank, of more than 1,000 characters or lines, or not printable: 422 that names it", "A form wants to show what is wrong.";
    Plain a_body_that_is_too_long_is_refused: "POST /echo of more than a megabyte: 413 if its length is announced; otherwise 413, or the answer breaks off", "Somebody has to pay for the memory.";
    Plain who_asks_before_sending_hears_no_before_sending: "POST with Expect: 100-continue: `100` only if the body is wanted; 401 and 413 without it", "Ten megabytes for a no are ten megabytes too many.";
    Plain a_client_that_goes_away_harms_nobody: "A connection that is closed in the middle of a head or a body: the next requests are answered", "Phones go into tunnels.";
    Plain a_time_that_cannot_be_is_named: "GET /slow without `ms`, twice, negative, too large, no number: 422 that names it", "A query is input too.";
    Plain a_string_that_cannot_be_an_id_is_not_found: "GET and DELETE /notes/{what is no id}: 404", "Paths are input too.";
    Plain no_spelling_of_a_path_gets_around_the_key: "//notes, /notes/, /./notes, /%6eotes, /NOTES and the like: 401 or 404, and never notes", "A guard and a router that read paths differently leave a gap between them.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
    Plain a_bomb_of_headers_is_refused: "Ten thousand headers, or one of a megabyte: 431 or 400, or the connection is closed", "They are read before any layer can say no.";
}

async fn a_request_without_the_right_key_is_refused(target: &Target) -> Outcome {
    let (_, path) = Client::of(target).note("a secret").await?;
    for method in [Method::GET, Method::DELETE, Method::POST, Method::HEAD] {
        let at = if method == Method::POST { "notes" } else { &path };
        for keys in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer nonsense"],
            &["Bearer let-ada-i"],
            &["Basic YWRhOmxldC1hZGEtaW4="],
            &["let-ada-in"],
            &[ADA, ADA],
            &[ADA, "Bearer nonsense"],
            &["Bearer nonsense", ADA],
        ] {
            let mut request = target.request(method.clone(), at).json(&json!({ "text": "x" }));
            for key in keys {
                request = request.header("authorization", *key);
            }
            let response = target.send(request).await?;
            let scheme = header(&response, "www-authenticate").to_owned();
            let words = || format!("for {method} with {keys:?}");
            status(&response, 401).with_context(words)?;
            expect(scheme.starts_with("Bearer"), "`WWW-Authenticate: Bearer`", scheme)?;
            if method != Method::HEAD {
                problem(response, 401).await.with_context(words)?;
            }
        }
    }
    status(&Client::of(target).get(&path).await?, 200)
}

async fn the_scheme_may_be_written_in_any_case(target: &Target) -> Outcome {
    for key in ["bearer let-ada-in", "BEARER let-ada-in", "Bearer   let-ada-in"] {
        let request = target.request(Method::GET, "notes").header("authorization", key);
        status(&target.send(request).await?, 200)?;
    }
    Ok(())
}

async fn a_bad_id_from_outside_is_not_taken(target: &Target) -> Outcome {
    let long = "x".repeat(65);
    let longer = "x".repeat(5_000);
    for bad in [
        &b""[..],
        b"two words",
        b"a;b",
        b"a\"b",
        b"<script>",
        b"a%0d%0ab",
        b"a\tb",
        b"\xff\xfe",
        "ä".as_bytes(),
        long.as_bytes(),
        longer.as_bytes(),
    ] {
        let request = target.request(Method::GET, "healthz");
        let request = request.header("x-request-id", HeaderValue::from_bytes(bad)?);
        let response = target.send(request).await?;
        let words = || format!("for {:.40?}", String::from_utf8_lossy(bad));
        status(&response, 200).with_context(words)?;
        let id = id(&response);
        let other = !id.is_empty() && id.as_bytes() != bad && id.len() <= 64;
        expect(other, "a new id", &id).with_context(words)?;
    }
    let twice = target.request(Method::GET, "healthz");
    let twice = twice.header("x-request-id", "one").header("x-request-id", "two");
    let response = target.send(twice).await?;
    let ids: Vec<_> = response.headers().get_all("x-request-id").iter().collect();
    let new = ids.len() == 1 && ids[0] != "one" && ids[0] != "two";
    expect(new, "one new id for two", format!("{ids:?}"))
}

/// Sends these bytes, and reads until the connection is closed.
async fn raw(target: &Target, bytes: &[u8]) -> anyhow::Result<String> {
    let host = target.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host.split('/').next().unwrap_or_default()).await?;
    target.note(&String::from_utf8_lossy(bytes), "nothing yet");
    // It may be closed before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut seen = Vec::new();
    let read = stream.read_to_end(&mut seen);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read)
        .await
        .context("expected an answer or the end of the connection within 20 s, got neither")?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    target.note(&String::from_utf8_lossy(bytes), &seen);
    Ok(seen)
}

async fn a_line_break_in_an_id_never_comes_back(target: &Target) -> Outcome {
    for id in ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\rx-evil: 1", "a\r\n x-evil: 1"] {
        let bytes = format!(
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-request-id: {id}\r\n\r\n"
        );
        let seen = raw(target, bytes.as_bytes()).await?.to_lowercase();
        let head = seen.split("\r\n\r\n").next().unwrap_or_default();
        expect(!head.contains("x-evil"), "an answer without `x-evil`", head)?;
        let fine = head.is_empty() || [" 200 ", " 400 "].iter().any(|it| head.contains(it));
        expect(fine, "200, 400 or the end of the connection", head)?;
    }
    Ok(())
}

async fn a_body_that_is_no_note_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let request = || client.request(Method::POST, "notes");
    refuses_bad_bodies(target, request, &json!({ "text": "buy tea" })).await
}

async fn a_text_that_cannot_be_is_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    for text in ["", " ", "a\nb", "a\0b", "\u{1b}[31m", "a\u{2028}b", &"x".repeat(1_001)] {
        let response = client.create(text).await?;
        invalid(response, "text").await.with_context(|| format!("for {text:.20?}"))?;
    }
    Ok(())
}

async fn a_body_that_is_too_long_is_refused(target: &Target) -> Outcome {
    let announced = target.request(Method::POST, "echo").body("x".repeat(10_000_000));
    refused_unread(target, announced, 413).await.context("one that says its length")?;
    let pieces = stream::iter(0..100).map(|_| anyhow::Ok("x".repeat(100_000)));
    let request = target.request(Method::POST, "echo").header("connection", "close");
    // What has begun to come back cannot become a 413 any more; but not all of it may come.
    if let Ok(response) = target.send(request.body(Body::wrap_stream(pieces))).await {
        status(&response, 413).context("one that does not say its length")?;
    }
    status(&target.get("healthz").await?, 200)
}

async fn who_asks_before_sending_hears_no_before_sending(target: &Target) -> Outcome {
    let head = |path: &str, key: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: {key}\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    for (path, key, length, expected) in
        [("/notes", "Bearer nonsense", 900_000, " 401 "), ("/echo", "none", 10_000_000, " 413 ")]
    {
        // Half a connection is enough: what is refused is answered without the body.
        let seen = first_line(target, &head(path, key, length)).await?;
        expect(seen.contains(expected), format!("{expected} before the body"), seen)?;
    }
    let seen = first_line(target, &head("/notes", ADA, 18)).await?;
    expect(seen.contains(" 100 "), "100 for a body that is wanted", seen)
}

/// The first line that comes for a request whose body is held back.
async fn first_line(target: &Target, head: &str) -> anyhow::Result<String> {
    let host = target.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host.split('/').next().unwrap_or_default()).await?;
    target.note(head, "nothing yet");
    stream.write_all(head.as_bytes()).await?;
    let mut seen = vec![0; 1_000];
    let read = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read(&mut seen));
    let read = read.await.context("expected an answer within 20 s, got none")??;
    let seen = String::from_utf8_lossy(&seen[..read]).into_owned();
    target.note(head, &seen);
    Ok(seen.lines().next().unwrap_or_default().to_owned())
}

async fn a_client_that_goes_away_harms_nobody(target: &Target) -> Outcome {
    let host = target.url().trim_start_matches("http://").split('/').next().unwrap_or_default();
    for bytes in [
        "GET /not",
        "POST /notes HTTP/1.1\r\nhost: localhost\r\n",
        "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nhalf of it",
        "POST /notes HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer let-ada-in\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"text\":",
        "GET /slow?ms=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(host).await?;
            stream.write_all(bytes.as_bytes()).await?;
        }
        status(&target.get("healthz").await?, 200)?;
    }
    status(&Client::of(target).create("after all these").await?, 201)
}

async fn a_time_that_cannot_be_is_named(target: &Target) -> Outcome {
    for query in ["", "?ms=", "?ms=x", "?ms=-1", "?ms=1.5", "?ms=60001", "?ms=1&ms=2", "?ms=1e3"] {
        let response = target.get(&format!("slow{query}")).await?;
        invalid(response, "ms").await.with_context(|| format!("for {query}"))?;
    }
    Ok(())
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "a".repeat(5_000);
    for shape in ["0", "x", "%20", "%00", "..%2fhealthz", "'--", "%ff%fe", &long] {
        let path = format!("notes/{shape}");
        let words = || format!("for {shape:.50}");
        let got = client.get(&path).await?;
        let seen = got.status().as_u16();
        // Bytes that are no text: nobody has to make sense of them.
        expect(seen == 404 || (seen == 400 && shape.contains("%ff")), 404, seen)
            .with_context(words)?;
        let deleted = client.delete(&path).await?;
        status_in(&deleted, &[400, 404]).with_context(words)?;
    }
    Ok(())
}

async fn no_spelling_of_a_path_gets_around_the_key(target: &Target) -> Outcome {
    let (note, path) = Client::of(target).note(&format!("a secret of {}", target.tag())).await?;
    let id = path.trim_start_matches("/notes/");
    for spelling in [
        "//notes".to_owned(),
        "/notes/".to_owned(),
        "/./notes".to_owned(),
        "/x/../notes".to_owned(),
        "/%6eotes".to_owned(),
        "/notes%2f".to_owned(),
        "/NOTES".to_owned(),
        "/notes;a=b".to_owned(),
        format!("/%6eotes/{id}"),
        format!("//notes/{id}"),
        format!("/notes//{id}"),
        format!("/notes/{id}/"),
        format!("/Notes/{id}"),
        format!("/notes%2f{id}"),
        "http://localhost/notes".to_owned(),
    ] {
        let bytes =
            format!("GET {spelling} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let seen = raw(target, bytes.as_bytes()).await?;
        let told = seen.contains(note["text"].as_str().unwrap_or_default());
        expect(!told, "no note for somebody without a key", &seen)?;
        let refused =
            [" 400 ", " 401 ", " 404 "].iter().any(|it| seen[..20.min(seen.len())].contains(it));
        expect(refused, format!("401 or 404 for {spelling}"), &seen)?;
    }
    equal("the note", Client::of(target).get(&path).await?.status().as_u16(), 200)
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::DELETE, "slow"),
        (Method::PATCH, "stack"),
        (Method::GET, "panic"),
        (Method::GET, "echo"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await?;
    let client = Client::of(target);
    let response = target.send(client.request(Method::PUT, "notes")).await?;
    expect(!header(&response, "allow").is_empty(), "a header `Allow` with the 405", "none")?;
    problem(response, 405).await.map(drop)
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nothing", "note", "stack/", "panic/", "slow/1", "echo/x"]).await
}

async fn a_bomb_of_headers_is_refused(target: &Target) -> Outcome {
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(1_000_000));
    for headers in [many, long] {
        let bytes = format!(
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        );
        let seen = raw(target, bytes.as_bytes()).await?;
        let refused = seen.is_empty() || [" 431 ", " 400 "].iter().any(|it| seen.contains(it));
        expect(refused, "431 or 400, or the end of the connection", seen)?;
        status(&target.get("healthz").await?, 200)?;
    }
    Ok(())
}
