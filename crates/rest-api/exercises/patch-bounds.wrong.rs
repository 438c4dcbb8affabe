// caught by: patch::
/// The user as the patch wants it. All of it is checked, as if it had come in a PUT.
pub fn apply(headers: &HeaderMap, patch: &[u8], user: &User) -> Result<NewUser> {
    let User { id, name, email, tags, .. } = user;
    let mut document = json!({ "id": id, "name": name, "email": email, "tags": tags });
    let media_type = only(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
    match media_type.split(';').next().unwrap_or_default().trim() {
        "application/merge-patch+json" => json_patch::merge(&mut document, &parse(patch)?),
        "application/json-patch+json" => in_steps(&mut document, &parse::<Vec<_>>(patch)?)?,
        _ => return Err(Error::PATCH_TYPE),
    }
    // The mistake: the id is taken away without a look, so a patch that changes it is taken and ignored.
    document.as_object_mut().map(|fields| fields.remove("id"));
    parse::<UserInput>(document.to_string().as_bytes())?.parse()
}

/// A JSON Patch, within bounds.
fn in_steps(document: &mut Value, patch: &[PatchOperation]) -> Result<()> {
    let copies = patch.iter().filter(|it| matches!(it, PatchOperation::Copy(_))).count();
    if patch.len() > 100 || copies > 5 || patch.iter().any(|it| it.path().count() > 2) {
        return Err(Error::invalid("", "at most 100 operations, 5 of them copies, in two levels"));
    }
    json_patch::patch_unsafe(document, patch).map_err(|error| match error.kind {
        PatchErrorKind::TestFailed => Error::TEST_FAILED,
        kind => Error::invalid("", kind.to_string()),
    })
}
