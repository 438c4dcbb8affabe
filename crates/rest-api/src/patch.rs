//! What does a PATCH make of a user? JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), within bounds.

use axum::http::HeaderMap;
use edge::{header::only, json::parse};
use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::user::{NewUser, User, UserInput};

// ANCHOR: patch
/// The user as the patch wants it. All of it is checked, as if it had come in a PUT.
pub fn apply(headers: &HeaderMap, patch: &[u8], user: &User) -> Result<NewUser> {
    let User { id, name, email, tags, .. } = user;
    let mut document = json!({ "id": id, "name": name, "email": email, "tags": tags });
    let media_type = only(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    match media_type.split(';').next().unwrap_or_default().trim() {
        // What is null is taken away, and an array is replaced as a whole.
        "application/merge-patch+json" => json_patch::merge(&mut document, &parse(patch)?),
        "application/json-patch+json" => in_steps(&mut document, &parse::<Vec<_>>(patch)?)?,
        _ => return Err(Error::PATCH_TYPE),
    }
    let patched_id = document.as_object_mut().and_then(|fields| fields.remove("id"));
    if patched_id != Some(json!(id)) {
        return Err(Error::invalid("id", "cannot be changed"));
    }
    parse::<UserInput>(document.to_string().as_bytes())?.parse()
}

/// A JSON Patch, within bounds. A limit on the number of operations is not enough: a `copy` of the document into itself
/// doubles it, so fifty of them in four kilobytes would fill any memory. And each step could go deeper than the one before,
/// until whoever walks the document has no stack left.
fn in_steps(document: &mut Value, patch: &[PatchOperation]) -> Result<()> {
    let copies = patch.iter().filter(|it| matches!(it, PatchOperation::Copy(_))).count();
    if patch.len() > 100 || copies > 5 || patch.iter().any(|it| it.path().count() > 2) {
        return Err(Error::invalid("", "at most 100 operations, 5 of them copies, in two levels"));
    }
    // Without an undo, which fails where a `move` has failed: on an error nobody uses the document.
    json_patch::patch_unsafe(document, patch).map_err(|error| match error.kind {
        PatchErrorKind::TestFailed => Error::TEST_FAILED,
        kind => Error::invalid("", kind.to_string()),
    })
}
// ANCHOR_END: patch

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;
    use axum::response::IntoResponse;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::cases::client::deep_patch;

    const MERGE: &str = "application/merge-patch+json";
    const PATCH: &str = "Application/JSON-Patch+json; charset=utf-8";

    fn patched(media_type: &str, patch: &str) -> std::result::Result<NewUser, u16> {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (name, email, tags) = ("Ada".into(), "ada@example.org".into(), vec!["a".into()]);
        let user = User {
            id: Uuid::nil(),
            name,
            email,
            tags,
            version: 1,
            created_at: now,
            updated_at: now,
            orders: None,
        };
        let headers = [(CONTENT_TYPE, media_type.parse().unwrap())].into_iter().collect();
        apply(&headers, patch.as_bytes(), &user)
            .map_err(|error| error.into_response().status().as_u16())
    }

    fn tags(media_type: &str, patch: &str) -> Vec<String> {
        patched(media_type, patch).unwrap().tags
    }

    #[test]
    fn each_kind_does_what_its_rfc_says() {
        assert_eq!(patched(MERGE, r#"{"name":"Bob"}"#).unwrap().name, "Bob");
        assert_eq!(tags(MERGE, r#"{"tags":["b"]}"#), ["b"]);
        assert_eq!(tags(MERGE, r#"{"tags":null}"#), [""; 0]);
        assert_eq!(tags(PATCH, r#"[{"op":"add","path":"/tags/-","value":"b"}]"#), ["a", "b"]);
        assert_eq!(tags(PATCH, r#"[{"op":"remove","path":"/tags/0"}]"#), [""; 0]);
        assert_eq!(tags(PATCH, "[]"), ["a"]);
    }

    #[test]
    fn what_makes_no_user_is_refused() {
        let many =
            format!("[{}]", vec![r#"{"op":"test","path":"/name","value":"Ada"}"#; 101].join(","));
        let half =
            r#"[{"op":"add","path":"/x","value":1},{"op":"move","from":"/x","path":"/no/way"}]"#;
        let deep = format!("{}1{}", r#"{"name":"#.repeat(10_000), "}".repeat(10_000));
        for (media_type, patch, status) in [
            (MERGE, r#"{"id":"x"}"#, 422),
            (MERGE, r#"{"name":null}"#, 422),
            (MERGE, r#"{"created_at":"2026-01-01T00:00:00Z"}"#, 422),
            (MERGE, "[]", 422),
            (MERGE, "{", 400),
            (MERGE, r#"{"name":"a","name":"b"}"#, 400),
            (MERGE, &deep, 400),
            (PATCH, r#"[{"op":"replace","path":"/id","value":"x"}]"#, 422),
            (PATCH, r#"[{"op":"move","from":"/id","path":"/name"}]"#, 422),
            (PATCH, r#"[{"op":"remove","path":""}]"#, 422),
            (PATCH, r#"[{"op":"replace","path":"/nothing","value":1}]"#, 422),
            (PATCH, r#"[{"op":"test","path":"/name","value":"Bob"}]"#, 409),
            (PATCH, r#"[{"op":"become","path":"/name"}]"#, 422),
            (PATCH, &many, 422),
            (PATCH, half, 422),
            ("application/json", "{}", 415),
            ("", "{}", 415),
        ] {
            assert_eq!(patched(media_type, patch).err(), Some(status), "{media_type} {patch:.80}");
        }
    }

    #[test]
    fn a_patch_that_doubles_the_document_again_and_again_is_stopped() {
        let bomb =
            format!("[{}]", vec![r#"{"op":"copy","from":"/tags","path":"/tags/-"}"#; 60].join(","));
        assert_eq!(patched(PATCH, &bomb).err(), Some(422));
    }

    #[test]
    fn a_patch_that_goes_deeper_with_each_step_is_stopped() {
        assert_eq!(patched(PATCH, &deep_patch()).err(), Some(422));
    }
}
