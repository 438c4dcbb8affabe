// caught by: page::
    /// What the cursors of this query say of it.
    fn name(&self) -> String {
        format!("{} {} {:?}", self.column, self.descending, self.email)
    }

    fn parse_cursor(&self, text: &str) -> Option<Cursor> {
        // The mistake: whatever decodes is believed, whichever query it is from and whatever its name is.
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// The query of the page after these users, if there is one; `users` has one more than the page, which is taken away.
    pub fn next(&self, users: &mut Vec<User>) -> Option<String> {
        users.get(usize::from(self.limit))?;
        users.truncate(self.limit.into());
        let User { name, created_at, id, .. } = users.last()?.clone();
        let cursor = Cursor { query: self.name(), name, created_at, id };
        let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?);
        let mut next = Serializer::new(String::new());
        Some(next.extend_pairs(&self.asked).append_pair("cursor", &cursor).finish())
    }
