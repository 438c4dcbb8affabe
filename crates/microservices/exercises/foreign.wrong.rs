// caught by: contract::
/// The tables of other modules that this source names in its SQL.
pub fn foreign_tables(module: Module, source: &str) -> BTreeSet<String> {
    // The mistake: it looks only behind `from`, and a `join` or an `update` goes by.
    let words: Vec<_> = source.split_whitespace().collect();
    let named = words.windows(2).filter(|pair| pair[0] == "from");
    let table = |word: &str| {
        let end = word.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
        let (schema, name) = word[..end.unwrap_or(word.len())].split_once('.')?;
        let is_schema = Module::SERVICES.iter().any(|it| it.name() == schema);
        (is_schema && schema != module.name()).then(|| format!("{schema}.{name}"))
    };
    named.filter_map(|pair| table(pair[1])).collect()
}
