//! What is a case? It is what a client does, what must come back according to the table, and why that matters.

use futures_util::future::BoxFuture;

use crate::target::Target;

/// The result of a case. The error says what was expected and what came instead.
pub type Outcome = anyhow::Result<()>;

/// What a case does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It sends requests as one client would.
    Plain,
    /// Many clients send requests at once.
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
    /// Its table of calls in Markdown. The text above the table says what the program needs and has to be told.
    pub calls: &'static str,
    /// Every case, in the order of the table.
    pub cases: Vec<Case>,
}

/// `cases! { Plain a_link_redirects: "what the table says", "why it matters"; … }`: a function `cases()` that lists
/// them. A forgotten case is dead code, and the compiler warns.
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
