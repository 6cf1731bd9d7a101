//! The HTTP edge: it parses requests, hands typed ones to the documents of this node, and answers.
//!
//! It sits in front of [`crate::document`] and knows nothing of journals, peers or Automerge.
//! Everything from a client is checked here, once: paths, headers, media types, sizes, nesting.
//! No body is ever logged.
//!
//! The routes are described by the OpenAPI document that `GET /v1/openapi.json` serves; a test
//! keeps the two in step. Every reply carries `Region` and `Data-Lag`; every error is `application/problem+json`
//! (RFC 9457) with a stable code.

mod body;
mod changes;
mod collections;
mod conflicts;
mod consistency;
mod documents;
mod epochs;
mod error;
mod history;
mod ledger;
mod listing;
mod metrics;
mod precondition;
mod regions;
mod replicas;
mod reply;
mod request;
mod serve;
mod session;
mod status;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use anabranch_crdt::ids::{ClusterId, Origin, RegionName};
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::consistency::Consistency;
use crate::document::{Documents, Door, NodeClock};
use crate::replication::PeerStatus;
use crate::settings::{Limits, Settings};
use crate::subscription::{Changes, Conflicts};
use crate::transport::Replicas;
use crate::transport::TransportHandle;

use self::body::Intake;
use self::error::Problem;

pub use self::serve::serve;

/// The parts of a node that the edge asks.
pub struct Sources {
    /// The documents.
    pub documents: Documents,
    /// The change feed.
    pub changes: Changes,
    /// The live ledger.
    pub conflicts: Conflicts,
    /// What replication knows of the other regions.
    pub peers: watch::Receiver<Arc<Vec<PeerStatus>>>,
    /// What waits for other regions.
    pub consistency: Consistency,
    /// The replicas in other regions.
    pub replicas: Replicas,
    /// The node's clock.
    pub clock: NodeClock,
    /// Whether this node takes writes.
    pub door: Door,
    /// The links, and the member table.
    pub transport: TransportHandle,
    /// Tells the present origin of this node, which may change while it runs.
    pub origin: Box<dyn Fn() -> Origin + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// What every request handler shares; clones are cheap.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

struct Shared {
    sources: Sources,
    cluster_name: String,
    cluster: ClusterId,
    region: RegionName,
    region_header: HeaderValue,
    limits: Limits,
    intake: Intake,
    closing: watch::Sender<bool>,
}

impl ApiState {
    /// Makes the state of the edge of one node.
    #[must_use]
    pub fn new(settings: &Settings, sources: Sources) -> Self {
        let region_header = HeaderValue::from_str(settings.region.as_str())
            .expect("a region name is made of letters, digits, '_', '-' and '.'");
        Self(Arc::new(Shared {
            sources,
            cluster_name: settings.cluster_name.clone(),
            cluster: settings.cluster,
            region: settings.region.clone(),
            region_header,
            limits: settings.limits.clone(),
            intake: Intake::new(&settings.limits),
            closing: watch::Sender::new(false),
        }))
    }

    fn documents(&self) -> &Documents {
        &self.0.sources.documents
    }

    fn consistency(&self) -> &Consistency {
        &self.0.sources.consistency
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// Turns true when the server begins to shut down.
    fn closing(&self) -> &watch::Sender<bool> {
        &self.0.closing
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("region", &self.0.region).finish_non_exhaustive()
    }
}

/// Builds the router of every route.
pub fn router(state: ApiState) -> Router {
    routes().router.with_state(state)
}

/// Routes on their way into a router, each with the path under which OpenAPI describes it.
struct Routes {
    router: Router<ApiState>,
    described: Vec<(Method, &'static str)>,
}

impl Routes {
    fn new() -> Self {
        Self { router: Router::new(), described: Vec::new() }
    }

    fn get<F>(self, path: &'static str, action: F) -> Self
    where
        Endpoint<F>: Handler<(), ApiState>,
    {
        self.route(MethodFilter::GET, path, action).describe(Method::GET, path)
    }

    fn post<F>(self, path: &'static str, action: F) -> Self
    where
        Endpoint<F>: Handler<(), ApiState>,
    {
        self.route(MethodFilter::POST, path, action).describe(Method::POST, path)
    }

    fn describe(mut self, method: Method, path: &'static str) -> Self {
        self.described.push((method, path));
        self
    }

    fn route<F>(mut self, method: MethodFilter, path: &str, action: F) -> Self
    where
        Endpoint<F>: Handler<(), ApiState>,
    {
        self.router = self.router.route(path, on(method, Endpoint(action)));
        self
    }

    /// Routes the methods of a document. An empty key is routed too, so that it is told as a bad
    /// key and not as a path that does not exist.
    fn document<F>(self, filter: MethodFilter, method: Method, action: F) -> Self
    where
        F: Clone,
        Endpoint<F>: Handler<(), ApiState>,
    {
        self.below("/v1/docs/{collection}/{key}", filter, method, action)
    }

    /// Routes a method of `{collection}/{key}` at the end of `described`; see
    /// [`Routes::document`].
    fn below<F>(
        self,
        described: &'static str,
        filter: MethodFilter,
        method: Method,
        action: F,
    ) -> Self
    where
        F: Clone,
        Endpoint<F>: Handler<(), ApiState>,
    {
        let collection = described.trim_end_matches("{key}");
        self.route(filter, &format!("{collection}{{*key}}"), action.clone())
            .route(filter, collection, action)
            .describe(method, described)
    }

    fn finish(mut self) -> Self {
        self.router = self
            .router
            .fallback(Endpoint(no_such_route))
            .method_not_allowed_fallback(Endpoint(method_not_allowed));
        self
    }
}

fn routes() -> Routes {
    Routes::new()
        .document(MethodFilter::GET, Method::GET, documents::read)
        .document(MethodFilter::PUT, Method::PUT, documents::put)
        .document(MethodFilter::PATCH, Method::PATCH, documents::patch)
        .document(MethodFilter::DELETE, Method::DELETE, documents::delete)
        .get("/v1/docs/{collection}", listing::list)
        .below(HISTORY, MethodFilter::GET, Method::GET, history::list)
        .below(DIFF, MethodFilter::GET, Method::GET, history::diff)
        .below(BLAME, MethodFilter::GET, Method::GET, history::blame)
        .below(REVERT, MethodFilter::POST, Method::POST, history::revert)
        .below(UNDELETE, MethodFilter::POST, Method::POST, epochs::undelete)
        .below(COMPACT, MethodFilter::POST, Method::POST, epochs::compact)
        .below(PURGE, MethodFilter::POST, Method::POST, epochs::purge)
        .below(EPOCHS, MethodFilter::GET, Method::GET, epochs::list)
        .get("/v1/quarantine", epochs::quarantine)
        .get("/v1/changes", changes::follow)
        .get("/v1/conflicts", conflicts::list)
        .get("/v1/conflicts/stats", ledger::stats)
        .get("/v1/conflicts/stream", ledger::follow)
        .get("/v1/conflicts/{id}", conflicts::read)
        .route(MethodFilter::POST, "/v1/conflicts/{id}", conflicts::act)
        .describe(Method::POST, "/v1/conflicts/{id}:resolve")
        .describe(Method::POST, "/v1/conflicts/{id}:dismiss")
        .describe(Method::POST, "/v1/conflicts/{id}:reopen")
        .describe(Method::POST, "/v1/conflicts/{id}:undo")
        .post("/v1/conflicts:resolve", conflicts::resolve_all)
        .post("/v1/conflicts:dismiss", conflicts::dismiss_all)
        .post("/v1/conflicts:reopen", conflicts::reopen_all)
        .get("/v1/collections", collections::list)
        .get("/v1/collections/{collection}", collections::read)
        .route(MethodFilter::PUT, "/v1/collections/{collection}", collections::put)
        .describe(Method::PUT, "/v1/collections/{collection}")
        .route(MethodFilter::DELETE, "/v1/collections/{collection}", collections::delete)
        .describe(Method::DELETE, "/v1/collections/{collection}")
        .route(MethodFilter::POST, "/v1/collections/{collection}", collections::act)
        .describe(Method::POST, "/v1/collections/{collection}:simulate")
        .get("/v1/regions", regions::list)
        .route(MethodFilter::POST, "/v1/regions/{region}", regions::act)
        .describe(Method::POST, "/v1/regions/{region}:drain")
        .describe(Method::POST, "/v1/regions/{region}:undrain")
        .describe(Method::POST, "/v1/regions/{region}:leave")
        .describe(Method::POST, "/v1/regions/{region}:forget")
        .get("/v1/replication", status::replication)
        .get("/v1/replication/differences", replicas::differences)
        .post("/v1/replication:verify", replicas::verify)
        .below(SYNC, MethodFilter::GET, Method::GET, replicas::standing)
        .get("/v1/status", status::status)
        .get("/v1/limits", status::limits)
        .get("/v1/openapi.json", status::openapi)
        .get("/metrics", metrics::metrics)
        .get("/livez", status::livez)
        .get("/readyz", status::readyz)
        .finish()
}

const HISTORY: &str = "/v1/history/{collection}/{key}";
const DIFF: &str = "/v1/diff/{collection}/{key}";
const BLAME: &str = "/v1/blame/{collection}/{key}";
const SYNC: &str = "/v1/sync/{collection}/{key}";
const UNDELETE: &str = "/v1/undelete/{collection}/{key}";
const COMPACT: &str = "/v1/compact/{collection}/{key}";
const PURGE: &str = "/v1/purge/{collection}/{key}";
const EPOCHS: &str = "/v1/epochs/{collection}/{key}";
const REVERT: &str = "/v1/revert/{collection}/{key}";

type Answer = Result<Response, Problem>;

/// Makes a function of state and request an axum handler that puts `Region` and `Data-Lag` on
/// every reply, errors included.
#[derive(Clone)]
struct Endpoint<F>(F);

impl<F, T> Handler<(), ApiState> for Endpoint<F>
where
    F: Fn(ApiState, Request) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = Answer> + Send + 'static,
{
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, state: ApiState) -> Self::Future {
        Box::pin(async move {
            let traced = tracing::enabled!(tracing::Level::TRACE)
                .then(|| (request.method().clone(), request.uri().path().to_owned()));
            let token = request.headers().get(reply::SESSION_TOKEN).cloned();
            let members = state.0.sources.transport.members();
            let answer = (self.0)(state.clone(), request).await;
            let answer = answer.map_err(|problem| problem.with_elsewhere(&members.borrow()));
            let mut response = answer.unwrap_or_else(IntoResponse::into_response);
            session::complete(&state, token.as_ref(), &mut response);
            let headers = response.headers_mut();
            headers.insert(reply::REGION, state.0.region_header.clone());
            consistency::set_lag(&state, headers);
            if let Some((method, path)) = traced {
                tracing::trace!(%method, path, status = response.status().as_u16(), "answered");
            }
            response
        })
    }
}

async fn no_such_route(_: ApiState, request: Request) -> Answer {
    let detail = format!(
        "there is no route '{}'; GET /v1/openapi.json describes those that exist",
        request.uri().path()
    );
    Err(Problem::new(StatusCode::NOT_FOUND, "no_such_route", detail))
}

/// axum adds the `Allow` header.
async fn method_not_allowed(_: ApiState, request: Request) -> Answer {
    let detail = format!("'{}' does not take {}", request.uri().path(), request.method());
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail))
}
