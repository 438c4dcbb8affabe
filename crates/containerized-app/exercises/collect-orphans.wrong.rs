// caught by: zombies
/// Collects every child that has ended. One signal may stand for many of them: signals of the same kind are not queued.
fn collect() {
    // The mistake: one child for each signal.
    let _ = wait(WaitOptions::NOHANG);
}
