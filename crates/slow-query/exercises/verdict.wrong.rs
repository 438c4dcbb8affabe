// caught by: treatment::
/// The verdict. It compares pages and not milliseconds, since pages are the same on each machine, at each hour. First of all the
/// rows must be the same: a query that returns nothing is the fastest one.
pub fn effect(before: &Examination, after: &Examination) -> Effect {
    // The mistake: a query that reads less helps, whatever it returns.
    let (pages, then) = (before.pages(), after.pages());
    if then * 2.0 <= pages {
        return Effect::Helps;
    }
    if !before.tally.is_same(&after.tally) {
        return Effect::ChangesTheAnswer;
    }
    if then >= pages * 2.0 { Effect::Harms } else { Effect::DoesNothing }
}
