//! What would gRPC change? Pricing answers it beside JSON, at the same address, and `call-cost` asks in both ways. The shop
//! itself asks in JSON.

use anyhow::Context;
use axum::Router;
use edge::trace::TRACEPARENT;
use tonic::{
    Request, Response, Status,
    metadata::MetadataValue,
    service::Routes,
    transport::{Channel, Endpoint},
};

use self::shop::pricing_client::PricingClient;
use self::shop::pricing_server::{Pricing as Calls, PricingServer};
use self::shop::{Price, Question};
use crate::call::{Call, TIMEOUT};
use crate::pricing::{self, Pricing};

/// What `build.rs` has made of `src/pricing.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "nobody wrote it")]
mod shop {
    tonic::include_proto!("shop");
}

// ANCHOR: serve
/// These calls, and pricing's over gRPC, on the same connections.
pub fn with(calls: Router) -> Router {
    calls.merge(Routes::new(PricingServer::new(Pricing)).into_axum_router())
}

#[tonic::async_trait]
impl Calls for Pricing {
    async fn quote(&self, question: Request<Question>) -> Result<Response<Price>, Status> {
        let Question { cents, quantity } = question.into_inner();
        let quote = pricing::quote(pricing::Question { cents, quantity });
        Ok(Response::new(Price { cents: quote.cents }))
    }
}
// ANCHOR_END: serve

/// Whoever asks over gRPC. All calls share one connection.
#[derive(Clone, Debug)]
pub struct Client(PricingClient<Channel>);

impl Client {
    /// Connects when it is first asked something.
    pub fn to(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
        Ok(Self(PricingClient::new(endpoint.connect_lazy())))
    }

    /// Asks with the time that is left and with the trace, as a peer does.
    pub async fn quote(
        &mut self,
        call: &Call,
        question: pricing::Question,
    ) -> anyhow::Result<pricing::Quote> {
        let left = call.left()?;
        let pricing::Question { cents, quantity } = question;
        let mut request = Request::new(Question { cents, quantity });
        // The client's own side ends the call then.
        request.set_timeout(left);
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        request.metadata_mut().insert(TIMEOUT, MetadataValue::from(millis));
        let trace = call.trace.to_string().parse().context("a trace is plain text")?;
        request.metadata_mut().insert(TRACEPARENT, trace);
        let Price { cents } = self.0.quote(request).await?.into_inner();
        Ok(pricing::Quote { cents })
    }
}
