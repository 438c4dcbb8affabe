//! A layer that does nothing, in four ways, to see what a layer costs by being there.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use futures_util::future::BoxFuture;
use tower::{Layer, Service, ServiceBuilder};

use crate::layer::Inner;

/// As a function with `next`.
pub async fn function(request: Request, next: Next) -> Response {
    next.run(request).await
}

/// By hand, with the future of what is inside.
#[derive(Clone, Copy, Debug)]
pub struct ByHand;

/// By hand, with its future in a box.
#[derive(Clone, Copy, Debug)]
pub struct Boxed;

/// [`ByHand`] around a service.
#[derive(Clone, Debug)]
pub struct ByHandService<S>(S);

/// [`Boxed`] around a service.
#[derive(Clone, Debug)]
pub struct BoxedService<S>(S);

impl<S> Layer<S> for ByHand {
    type Service = ByHandService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ByHandService(inner)
    }
}

impl<S> Layer<S> for Boxed {
    type Service = BoxedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoxedService(inner)
    }
}

impl<S: Service<Request>> Service<Request> for ByHandService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> S::Future {
        self.0.call(request)
    }
}

impl<S> Service<Request> for BoxedService<S>
where
    S: Service<Request, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}

/// Ten of a layer around a service. Each knows the type of what is inside it, so a compiler can see through all of them.
macro_rules! ten {
    ($layer:expr, $service:expr) => {{
        let five = ServiceBuilder::new()
            .layer($layer)
            .layer($layer)
            .layer($layer)
            .layer($layer)
            .layer($layer);
        Inner::new(five.clone().service(five.service($service)))
    }};
}

/// A service with ten layers of each kind around it, and with none.
pub fn kinds<S>(service: S) -> [(&'static str, Inner); 5]
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    // As our stack does it, so that a list of names can decide the order.
    let any = |inner: Inner, _| Inner::new(ByHand.layer(inner));
    [
        ("none", Inner::new(service.clone())),
        ("by hand", ten!(ByHand, service.clone())),
        ("by hand, in a box", ten!(Boxed, service.clone())),
        ("a type that holds any layer", (0..10).fold(Inner::new(service.clone()), any)),
        ("from_fn", ten!(from_fn(function), service)),
    ]
}
