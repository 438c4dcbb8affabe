// caught by: index::
    /// The statement that makes it; `how` is empty, or `concurrently`. Its words are ours: they come from the lists above.
    pub fn statement(&self, how: &str, name: &Name) -> String {
        let unique = if self.unique { "unique " } else { "" };
        let method = match self.kind {
            Kind::Btree => "btree",
            Kind::Hash => "hash",
            Kind::Gin | Kind::Trigram => "gin",
            Kind::Brin => "brin",
        };
        let class = if self.kind == Kind::Trigram { " gin_trgm_ops" } else { "" };
        // The mistake: what is included becomes a key, so a unique index allows the same address with two names.
        let include = self.include.iter().map(|it| Key::Column(*it));
        let keys = self.keys.iter().copied().chain(include);
        let keys: Vec<_> = keys.map(|key| format!("{}{class}", key.words())).collect();
        let mut sql = format!(r#"create {unique}index {how} "{}" on users"#, name.as_str());
        sql += &format!(" using {method} ({})", keys.join(", "));
        match self.status {
            Some(Status::Active) => sql + " where status = 'active'::text",
            Some(Status::Blocked) => sql + " where status = 'blocked'::text",
            None => sql,
        }
    }
