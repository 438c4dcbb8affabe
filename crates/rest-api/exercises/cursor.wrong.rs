// caught by: page::
    /// What the cursors of this query say of it.
    fn name(&self) -> (String, Option<String>) {
        (format!("{:?}", self.sort), self.email.clone())
    }

    fn parse_cursor(&self, text: &str) -> Option<Cursor> {
        // The mistake: whatever decodes is believed, whichever query it is from and whatever its key is.
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// The query of the page after these users, if there is one; `users` has one more than the page, which is taken away.
    pub fn next(&self, users: &mut Vec<User>) -> Option<String> {
        let full = usize::try_from(self.limit).unwrap_or_default();
        let last = if users.len() > full { users.get(full - 1)? } else { return None };
        let cursor = Cursor { query: self.name(), key: self.sort.key(last), id: last.id };
        let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?);
        users.truncate(full);
        let others = self.parameters.iter().filter(|(name, _)| name != "cursor");
        let mut query = form_urlencoded::Serializer::new(String::new());
        Some(query.extend_pairs(others).append_pair("cursor", &cursor).finish())
    }
