//! What is a case? What a client does, what the table says must come of it, and why that matters.

use futures_util::future::BoxFuture;

use crate::target::Target;

/// The result of a case: an error says what came in place of what should.
pub type Outcome = anyhow::Result<()>;

/// What a case does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It asks, as one client would.
    Plain,
    /// Many ask at once.
    Load,
    /// It kills the server and starts it again.
    Restart,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// A sentence about behaviour.
    pub name: &'static str,
    /// What it does to its target.
    pub kind: Kind,
    /// What the table says.
    pub says: &'static str,
    /// Why a client cares.
    pub why: &'static str,
    /// Tries it.
    pub run: for<'a> fn(&'a Target) -> BoxFuture<'a, Outcome>,
}

/// An answer's cases.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its table of calls, in Markdown, below what the program has to be and to be told.
    pub calls: &'static str,
    /// Every case, in the order of the table.
    pub cases: Vec<Case>,
}

/// `cases! { Plain a_link_redirects: "what the table says", "why it matters"; … }`: a function `cases()` that lists
/// them. One that is forgotten is dead code, and a lint.
#[macro_export]
macro_rules! cases {
    ($($kind:ident $name:ident: $says:literal, $why:literal;)*) => {
        /// The cases of this file, in the order of the table.
        pub fn cases() -> Vec<$crate::case::Case> {
            vec![$($crate::case::Case {
                name: stringify!($name),
                kind: $crate::case::Kind::$kind,
                says: $says,
                why: $why,
                run: |target| Box::pin($name(target)),
            }),*]
        }
    };
}
