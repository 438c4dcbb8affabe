// caught by: sharding
/// Moves every link to where the ring says that it belongs.
async fn move_links(shards: &Shards) -> Result<(), Error> {
    let mut all_moved = true;
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
            let there = &shards.all()[there];
            let copied = store.copy_links(&codes, there).await?;
            let mut done = 0;
            while store.copy_clicks(&copied, (done, PIECE), there).await? == PIECE {
                done += PIECE;
            }
            store.delete_all(&codes, &copied).await?;
            all_moved &= copied.len() == codes.len();
        }
    }
    if all_moved { Ok(()) } else { Err(Error::WrongShards(TAKEN)) }
}
