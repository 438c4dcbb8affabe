// caught by: index::
    /// The statement that makes it; `how` is empty, or `concurrently`. Its words are ours: they come from the lists above.
    pub fn statement(&self, how: &str, name: &Name) -> String {
        let quoted = |column: &Column| format!(r#""{}""#, word(column));
        let expression = self.expression.map(|it| format!("({})", word(it)));
        // The mistake: what is included becomes a key, so a unique index allows the same address with two names.
        let columns = self.columns.iter().chain(&self.include);
        let keys = expression.into_iter().chain(columns.map(quoted));
        let (method, class) = match self.kind {
            Kind::Trigram => ("gin".to_owned(), " gin_trgm_ops"),
            Kind::Gist => (word(Kind::Gist), " gist_trgm_ops"),
            kind => (word(kind), ""),
        };
        let keys: Vec<_> = keys.map(|key| key + class).collect();
        let unique = if self.unique { "unique " } else { "" };
        let mut sql = format!(r#"create {unique}index {how} "{}" on users"#, name.as_str());
        sql += &format!(" using {method} ({})", keys.join(", "));
        if let Some(condition) = self.condition {
            sql += &format!(" where {}", word(condition));
        }
        sql
    }
