//! stub
pub mod terminal {
    //! stub
    use crate::{Report, recorder::Event};
    /// x
    pub fn show(r: &Report) -> String { format!("{r:?}") }
    /// x
    pub struct Progress;
    impl Progress { /// x
        pub fn new() -> Self { Self } /// x
        pub fn show(&mut self, e: &Event) { eprintln!("{e:?}"); } }
}
