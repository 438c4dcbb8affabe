// caught by: patch::
/// The user as the patch wants it. All of it is checked, as if it had come in a PUT.
pub fn apply(media_type: &str, patch: &[u8], user: &User) -> Result<NewUser, Error> {
    let User { id, name, email, tags, .. } = user;
    let mut document = json!({ "id": id, "name": name, "email": email, "tags": tags });
    match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/merge-patch+json" => json_patch::merge(&mut document, &parse(patch)?),
        "application/json-patch+json" => in_steps(&mut document, &parse::<Vec<_>>(patch)?)?,
        _ => return Err(Error::PatchType),
    }
    // The mistake: the id is taken away without a look, so a patch that changes it is taken and ignored.
    document.as_object_mut().map(|fields| fields.remove("id"));
    parse::<UserInput>(document.to_string().as_bytes())?.parse()
}

/// The number of operations is limited, and the size of what they make.
fn in_steps(document: &mut Value, patch: &[PatchOperation]) -> Result<(), Error> {
    let refused = |message: &str| Error::Invalid(vec![FieldError::new("", message)]);
    if patch.len() > MOST_OPERATIONS {
        return Err(refused("a patch has at most 100 operations"));
    }
    for operation in patch {
        json_patch::patch(document, std::slice::from_ref(operation)).map_err(|error| {
            match operation {
                PatchOperation::Test(_) => Error::TestFailed,
                _ => refused(&error.to_string()),
            }
        })?;
        if document.to_string().len() > LARGEST {
            return Err(refused("the document becomes too large"));
        }
    }
    Ok(())
}
