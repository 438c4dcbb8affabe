// caught by: log::
/// The records, and where the last complete frame ends. The error is where the log is damaged.
fn records(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize), usize> {
    let (mut records, mut end) = (Vec::new(), 0);
    // The mistake: whatever cannot be read ends the log. One damaged byte, and all acknowledged writes behind it are
    // silently cut off.
    while let Some(record) = first(&bytes[end..]) {
        records.push(record.to_vec());
        end += HEAD + record.len();
    }
    Ok((records, end))
}

/// The record of the frame at the beginning of these bytes, if it is complete and undamaged.
fn first(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let record = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (!record.is_empty() && crc32fast::hash(record) == u32::from_le_bytes(*crc)).then_some(record)
}
