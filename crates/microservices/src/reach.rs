//! How does a caller reach a module that may be a part of this process, or a service?
//!
//! Each module lists its calls once. From the list, the macro `calls!` writes both sides: what a service answers, and what its
//! callers call. gRPC's compiler makes the same of a `.proto` file.

use std::sync::Arc;

use crate::peer::Peer;

// ANCHOR: reach
/// A module that is a part of this process, or a service. Its callers need not know which.
#[derive(Clone, Debug)]
pub enum Reach<M> {
    /// A call is a function call.
    Here(M),
    /// A call is a request.
    There(Arc<Peer>),
}

/// The calls of a module, from their names, their questions and their answers. Each is a function of the module.
macro_rules! calls {
    ($module:ident as $name:literal: $($call:ident($question:ty) -> $answer:ty;)*) => {
        /// A question to this module, as a service: `{"call": question}`.
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        #[allow(non_camel_case_types, reason = "a variant is called as its function")]
        pub enum Ask {
            $(#[doc = "See the function of this name."] $call($question),)*
        }

        impl $module {
            /// As a service.
            pub async fn answer(self, call: Call, ask: Ask) -> Result<serde_json::Value> {
                Ok(match ask {
                    $(Ask::$call(it) => serde_json::json!(self.$call(&call, it).await?),)*
                })
            }
        }

        impl $crate::reach::Reach<$module> {
            $(
                /// Calls the module's function of this name, or asks the service the same question.
                pub async fn $call(&self, call: &Call, it: $question) -> Result<$answer> {
                    let name = concat!($name, ".", stringify!($call));
                    let work = |call: Call| async move {
                        match self {
                            Self::Here(here) => here.$call(&call, it).await,
                            Self::There(peer) => peer.ask(&call, &Ask::$call(it)).await,
                        }
                    };
                    call.span(name, work).await
                }
            )*
        }
    };
}
// ANCHOR_END: reach

pub(crate) use calls;
