//! What is not the answer, and compared with it.

pub mod bodies;
pub mod library;
pub mod noop;
pub mod transfers;
pub mod usual;

use crate::layer::{Inner, Name};
use crate::stack::Settings;

/// Puts a layer around a service that the answer does not have itself: one that reads bodies, or the library's.
pub fn layer(name: Name, settings: &Settings, inner: Inner) -> Inner {
    match name {
        Name::Digest | Name::Signature | Name::SignatureStream => bodies::layer(name, inner),
        _ => library::layer(name, settings, inner),
    }
}
