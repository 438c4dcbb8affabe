// caught by: retry::
/// What becomes of a job that was claimed.
pub fn verdict(was_cut_off: bool, crashes: i32) -> Verdict {
    match (was_cut_off, crashes) {
        (true, CRASHES..) => Verdict::Bury,
        // The mistake: a suspect waits because it is one, also when it has just waited. Nobody tries it any more: after
        // enough waits it is dead, and has killed nobody.
        (_, SUSPECT..) => Verdict::Wait,
        _ => Verdict::Try,
    }
}
