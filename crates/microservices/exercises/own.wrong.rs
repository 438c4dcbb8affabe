// caught by: shop::
/// The time of a span without that of the longest one within it. It compares no clocks of different services.
pub fn own_micros(span: &Span, all: &[Span]) -> u64 {
    // The mistake: parts that were under way at the same time are counted one after another.
    let within: u64 = all.iter().filter(|it| it.parent == span.id).map(|it| it.micros).sum();
    span.micros.saturating_sub(within)
}
