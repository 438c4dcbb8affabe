// caught by: sharding
/// Moves every link to where the ring says that it belongs.
async fn move_links(shards: &Shards) -> anyhow::Result<()> {
    let mut all_moved = true;
    for (here, from) in shards.all().iter().enumerate() {
        // The mistake: only the first batch of each shard is moved.
        let codes = from.codes_after("").await?;
        for (there, to) in shards.all().iter().enumerate() {
            let leaves = |code: &&Code| there != here && shards.number_of(code) == there;
            let leaving: Vec<_> = codes.iter().filter(leaves).collect();
            let copied = from.copy(&leaving, to).await?;
            from.delete_all(&copied).await?;
            all_moved &= copied.len() == leaving.len();
        }
    }
    ensure!(all_moved, "links were left behind, since other links have their codes");
    Ok(())
}
