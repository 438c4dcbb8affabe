//! Who may do what? A handler says it in its first parameter, and a router takes no handler without one.
//!
//! Invariant: a call of [`Routes`] is reached only through [`May`], or was declared as open by name. Whoever forgets the
//! check has nothing that compiles:
//!
//! ```
//! use secure_api::may::{May, ReadInvoices, Routes};
//! async fn list(_: May<ReadInvoices>, _: axum::http::Uri) {}
//! Routes::<secure_api::api::Api>::new().guarded("GET", "/invoices", list);
//! ```
//!
//! ```compile_fail
//! use secure_api::may::{May, ReadInvoices, Routes};
//! async fn list(_: axum::http::Uri) {}
//! Routes::<secure_api::api::Api>::new().guarded("GET", "/invoices", list);
//! ```

use std::{marker::PhantomData, sync::Arc};

use axum::Router;
use axum::extract::{FromRef, FromRequestParts};
use axum::handler::Handler;
use axum::http::{Method, request::Parts};
use axum::routing::{MethodFilter, on};
use edge::header::bearer;

use crate::error::{Error, Result};
use crate::frame::RequestId;
use crate::token::{By, Role, Tokens};

/// Something that roles may do.
pub trait Permission: Send + Sync + 'static {
    /// Who has it. Nobody else.
    const ROLES: &'static [Role];
}

// ANCHOR: permissions
/// Sees the invoices of the caller's own customer.
pub struct ReadInvoices;
impl Permission for ReadInvoices {
    const ROLES: &'static [Role] = &[Role::Viewer, Role::Clerk];
}

/// Changes them, and says who is told of changes.
pub struct WriteInvoices;
impl Permission for WriteInvoices {
    const ROLES: &'static [Role] = &[Role::Clerk];
}

/// Sees who the customers are, and who did what.
pub struct Administer;
impl Permission for Administer {
    const ROLES: &'static [Role] = &[Role::Admin];
}
// ANCHOR_END: permissions

/// The caller, who may do this.
#[derive(Debug)]
pub struct May<P> {
    /// Who asks, and in which request.
    pub by: By,
    permission: PhantomData<fn() -> P>,
}

// ANCHOR: may
impl<P: Permission, S: Send + Sync> FromRequestParts<S> for May<P>
where
    Arc<Tokens>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let tokens: Arc<Tokens> = FromRef::from_ref(state);
        let token = bearer(&parts.headers).ok_or(Error::UNAUTHENTICATED)?;
        let who = tokens.caller(token)?;
        if let Some(span) = parts.extensions.get::<tracing::Span>() {
            span.record("user", tracing::field::display(who.user));
        }
        if !P::ROLES.contains(&who.role) {
            return Err(Error::FORBIDDEN);
        }
        let by = By { who, request_id: RequestId::of(&parts.extensions) };
        Ok(Self { by, permission: PhantomData })
    }
}
// ANCHOR_END: may

// ANCHOR: routes
/// The parameters of a handler whose first one is [`May`]. `M` is axum's own mark.
pub trait Guarded {
    /// Who has the permission that the first parameter asks for.
    const ROLES: &'static [Role];
}

impl<M, P: Permission, A> Guarded for (M, May<P>, A) {
    const ROLES: &'static [Role] = P::ROLES;
}
impl<M, P: Permission, A, B> Guarded for (M, May<P>, A, B) {
    const ROLES: &'static [Role] = P::ROLES;
}
impl<M, P: Permission, A, B, C> Guarded for (M, May<P>, A, B, C) {
    const ROLES: &'static [Role] = P::ROLES;
}
// ANCHOR_END: routes

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET`
    pub method: &'static str,
    /// `/invoices/{id}`
    pub path: &'static str,
    /// Who may; nothing if everybody may.
    pub roles: Option<&'static [Role]>,
}

/// The calls, as a router and as a table. What is added here is in both.
pub struct Routes<S> {
    /// What answers.
    pub router: Router<S>,
    /// What can be asked.
    pub table: Vec<Route>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[expect(clippy::new_without_default, reason = "nobody needs it")]
    pub fn new() -> Self {
        Self { router: Router::new(), table: Vec::new() }
    }

    /// Adds a call for those who may.
    pub fn guarded<H, T>(self, method: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: Guarded + 'static,
    {
        self.add(Route { method, path, roles: Some(T::ROLES) }, handler)
    }

    /// Adds a call for everybody.
    pub fn open<H, T>(self, method: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(Route { method, path, roles: None }, handler)
    }

    fn add<H: Handler<T, S>, T: 'static>(mut self, route: Route, handler: H) -> Self {
        let method = Method::from_bytes(route.method.as_bytes()).ok();
        let filter = method.and_then(|method| MethodFilter::try_from(method).ok());
        // A wrong method is a mistake in the list of calls, and the first start finds it.
        let filter = filter.expect("axum knows the methods of HTTP");
        self.router = self.router.route(route.path, on(filter, handler));
        self.table.push(route);
        self
    }
}
