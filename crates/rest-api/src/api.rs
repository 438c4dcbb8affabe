//! What does the service say, and to whom? The table of calls as handlers, and as a document made of the same handlers.

mod orders;
mod users;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header::ALLOW, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use edge::Json;
use edge::frame::{alive, in_time, method_not_allowed, panicked};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response};
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::error::{ACCEPT_PATCH, Error};
use crate::graphql::Api;
use crate::links::{Links, Urls};
use crate::negotiate::{in_a_wanted_type, of_the_old_version};
use crate::store::Store;

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Many times the largest user.
const MAX_BODY: usize = 64 * 1_024;

/// What the handlers share. None of it is about a client: any process can answer the next request.
pub struct App {
    /// The users and their orders.
    pub store: Store,
    /// Where everything is.
    pub urls: Urls,
    /// The same as a graph.
    pub graphql: Api,
}

#[derive(OpenApi)]
#[openapi(info(title = "Users and their orders", version = "2"), components(schemas(ProblemBody)))]
struct Document;

/// All of the service.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let (calls, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::show, users::put, users::patch_user, users::delete))
        .routes(routes!(orders::of_user, orders::order))
        .routes(routes!(orders::show_order))
        .routes(routes!(orders::cancel))
        .routes(routes!(orders::ship))
        .routes(routes!(graphql))
        .split_for_parts();
    let old = Router::new()
        .route("/v1/customers", get(users::list))
        .route("/v1/customers/{id}", get(users::show))
        .layer(from_fn(of_the_old_version));
    let calls = calls
        .merge(old)
        .route("/", get(entry))
        .layer(from_fn(in_a_wanted_type))
        .route("/openapi.json", get(async || Json(document)))
        .route("/docs", get(Html(include_str!("docs.html"))))
        .route("/readyz", get(ready));
    let calls = if app.urls.0.is_empty() {
        calls
    } else {
        Router::new().nest(&app.urls.0, calls).route("/", get(entry))
    };
    let calls = calls
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app.clone());
    Router::new()
        .fallback_service(calls)
        .layer(from_fn(options))
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().on_failure(()))
}

/// Where a client begins that knows one URL.
async fn entry(State(app): State<Arc<App>>) -> Json<Value> {
    let links: Links = app.urls.of_entry();
    Json(json!({ "_links": links }))
}

async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, Error> {
    app.store.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}

/// A query of the graph. Its own errors come with 200, as GraphQL clients expect it.
#[utoipa::path(post, path = "/graphql", request_body = Object,
    responses((status = 200, description = "data, or errors", body = Object), RefusedBody, Refused))]
async fn graphql(
    State(app): State<Arc<App>>,
    Json(request): Json<async_graphql::Request>,
) -> Json<async_graphql::Response> {
    Json(app.graphql.execute(request).await)
}

/// `OPTIONS` says what a path takes: just what a 405 for it would say.
async fn options(request: Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let allow = response.headers().get(ALLOW).and_then(|it| it.to_str().ok()).map(str::to_owned);
    if let Some(allow) = allow.filter(|_| asked) {
        response = (StatusCode::NO_CONTENT, [(ALLOW, format!("{allow},OPTIONS"))]).into_response();
        if allow.contains("PATCH") {
            let header = HeaderName::from_static("accept-patch");
            response.headers_mut().insert(header, HeaderValue::from_static(ACCEPT_PATCH));
        }
    }
    response
}

/// An id in the path, written as we write it. A string that cannot be one is not found.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Id {
    id: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| Error::NotFound)?.0;
        // One user has one URL: not a second one in capitals or in braces.
        let id = Uuid::try_parse(&text).ok().filter(|id| id.to_string() == text);
        id.map(|id| Self { id }).ok_or(Error::NotFound)
    }
}

/// A problem document (RFC 9457).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described; `edge` writes it")]
struct ProblemBody {
    title: String,
    status: u16,
    detail: String,
}

/// Says for the document which problems there may be.
macro_rules! problems {
    ($($name:ident: $statuses:expr;)*) => {$(
        struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<response::Response>> {
                let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody")));
                let problem = ResponseBuilder::new()
                    .description("a problem document")
                    .content("application/problem+json", problem.build())
                    .build();
                $statuses.into_iter().map(|it: u16| (it.to_string(), problem.clone().into())).collect()
            }
        }
    )*};
}

problems! {
    Refused: [404, 406, 422, 503];
    RefusedBody: [400, 409, 413, 415];
    Condition: [409, 412, 428];
}
