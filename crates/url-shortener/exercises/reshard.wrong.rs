// caught by: sharding
/// Moves every link that is not where the ring says to where it belongs; returns how many those were.
pub async fn reshard(shards: &Shards) -> Result<u64, Error> {
    let mut moved = 0;
    for (here, store) in shards.all().iter().enumerate() {
        let mut leaving: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        // The mistake: what does not fit into the first batch stays behind.
        for code in store.codes_after("", BATCH).await? {
            let there = shards.number_of(&code);
            if there != here {
                leaving.entry(there).or_default().push(code);
            }
        }
        for (there, codes) in leaving {
            shards.all()[there].unpack(&store.pack(&codes).await?).await?;
            store.delete_all(&codes).await?;
            moved += codes.len() as u64;
        }
    }
    Ok(moved)
}
