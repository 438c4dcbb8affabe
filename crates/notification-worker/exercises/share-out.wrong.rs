// caught by: shard::
/// The owner of each shard.
pub fn assign(shards: u16, members: &[Member]) -> Vec<Option<&str>> {
    let owner = |shard: u16| {
        let may: Vec<_> = members.iter().filter(|member| member.shards.contains(&shard)).collect();
        // The mistake: to count them off. It is even, and when one worker leaves nearly every shard moves.
        let n = usize::from(shard).checked_rem(may.len())?;
        Some(may[n].name.as_str())
    };
    (0..shards).map(owner).collect()
}
