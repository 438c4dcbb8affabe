// caught by: sharding
/// Moves every link to where the ring says that it belongs.
async fn move_links(shards: &Shards) -> anyhow::Result<()> {
    let mut all_moved = true;
    for (here, from) in shards.all().iter().enumerate() {
        // The mistake: what does not fit into the first batch stays behind.
        let codes = from.codes_after("", BATCH).await?;
        for (there, to) in shards.all().iter().enumerate() {
            let leaves = |code: &&Code| there != here && shards.number_of(code) == there;
            let leaving: Vec<_> = codes.iter().filter(leaves).collect();
            if leaving.is_empty() {
                continue;
            }
            let copied = from.copy_links(&leaving, to).await?;
            from.copy_clicks(&copied, to).await?;
            from.delete_all(&copied).await?;
            all_moved &= copied.len() == leaving.len();
        }
    }
    ensure!(all_moved, "some links stay where nobody finds them");
    Ok(())
}
