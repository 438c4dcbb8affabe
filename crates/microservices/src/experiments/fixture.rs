//! What do tests, experiments and cases start from? Fresh databases, and the shop in one process or in six.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{Router, extract::State, http::StatusCode, routing::post};
use futures_util::future::try_join_all;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    fault::Proxy,
    queues::Queues,
    serve::{Here, here},
};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::{MIGRATIONS, module::Module};

const NAME: &str = "microservices";

/// Fresh databases: one with all schemas, and one for each service that keeps something. They are dropped with this value,
/// so it has to outlive its processes.
#[derive(Debug)]
pub struct Fixture {
    /// The monolith's.
    pub whole: Database,
    parts: BTreeMap<Module, Database>,
}

/// How the services are started.
#[derive(Debug)]
pub struct Setup<'a> {
    /// For a request, for a call, and for a call whose answer the page can do without.
    pub time_outs: [&'a str; 3],
    /// Further words for each of them.
    pub words: &'a [&'a str],
    /// And for the gateway alone.
    pub gateway: &'a [&'a str],
    /// And for the recommendations.
    pub recommendations: &'a [&'a str],
    /// Those that others reach over a network that can be cut.
    pub proxied: &'a [Module],
    /// Where the payments are, if not here.
    pub payments: Option<&'a str>,
    /// Events go over RabbitMQ.
    pub queues: Option<&'a Queues>,
    /// All on the monolith's database.
    pub shared: bool,
}

impl Default for Setup<'_> {
    /// Patient, so that a busy machine does not fail where something else is tried.
    fn default() -> Self {
        Self {
            time_outs: ["20000", "5000", "5000"],
            words: &[],
            gateway: &[],
            recommendations: &[],
            proxied: &[],
            payments: None,
            queues: None,
            shared: false,
        }
    }
}

/// The shop in six processes.
#[derive(Debug)]
pub struct Services {
    /// By what they are.
    pub children: BTreeMap<Module, Child>,
    /// What stands before some of them.
    pub proxies: BTreeMap<Module, Proxy>,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        let whole = Database::fresh(NAME, &MIGRATIONS).await?;
        let mut parts = BTreeMap::new();
        for module in Module::SERVICES {
            if let Some(own) = module.migrations() {
                parts.insert(module, Database::fresh_part(NAME, module.name(), &own).await?);
            }
        }
        Ok(Self { whole, parts })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// Prepares the monolith.
    pub fn monolith(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.whole)
    }

    /// Prepares one service. It is the whole whiteboard version if that is asked for, on the monolith's database.
    pub fn service(&self, module: Module, shared: bool) -> ChildBuilder {
        let child = self.monolith().args(&["--only", module.name()]);
        match self.parts.get(&module) {
            Some(database) if !shared => child.arg("--database").arg(database.url()),
            _ => child.arg("--database").arg(self.whole.url()),
        }
    }

    /// The database of a service.
    pub fn of_service(&self, module: Module) -> anyhow::Result<&Database> {
        self.parts.get(&module).context("it keeps nothing")
    }

    /// Starts all services: those first that ask nobody.
    pub async fn services(&self, setup: &Setup<'_>) -> anyhow::Result<Services> {
        let mut all = Services { children: BTreeMap::new(), proxies: BTreeMap::new() };
        use Module::{Catalogue, Gateway, Orders, Payments, Pricing, Recommendations};
        let waves = [&[Catalogue, Pricing, Payments, Recommendations][..], &[Orders], &[Gateway]];
        for wave in waves {
            let starting = wave.iter().map(|module| self.prepared(*module, setup, &all).start());
            for (module, child) in wave.iter().zip(try_join_all(starting).await?) {
                if setup.proxied.contains(module) {
                    all.proxies.insert(*module, Proxy::to(child.address()).await?);
                }
                all.children.insert(*module, child);
            }
        }
        Ok(all)
    }

    /// Prepares one of the services, which finds the others where they are.
    pub fn prepared(&self, module: Module, setup: &Setup<'_>, all: &Services) -> ChildBuilder {
        let [request, call, optional] = setup.time_outs;
        let mut child = self.service(module, setup.shared).args(setup.words);
        child = child.args(&["--timeout-ms", request, "--call-timeout-ms", call]);
        child = child.args(&["--optional-timeout-ms", optional]);
        for asked in module.asks() {
            let elsewhere = setup.payments.filter(|_| *asked == Module::Payments);
            let url = elsewhere.map_or_else(|| all.url(*asked), str::to_owned);
            child = child.arg("--at").arg(format!("{}={url}", asked.name()));
        }
        child = match module {
            Module::Gateway => child.args(&["--admin"]).args(setup.gateway),
            Module::Recommendations => child.args(setup.recommendations),
            _ => child,
        };
        if let Some(payments) = setup.payments {
            // For the whiteboard version, which has no options.
            child = child.env("SHOP_PAYMENTS", payments);
        }
        if let Some(queues) = setup.queues {
            child = child.arg("--events").arg(format!("{}.", queues.prefix()));
            child = child.env("AMQP_URL", queues.url());
        }
        if module == Module::Gateway {
            // For the whiteboard version, which has no options.
            child = child.env("SHOP_RECOMMENDATIONS", all.url(Module::Recommendations));
        }
        child
    }
}

impl Services {
    /// Where others reach it.
    pub fn url(&self, module: Module) -> String {
        match (self.proxies.get(&module), self.children.get(&module)) {
            (Some(proxy), _) => format!("http://{}", proxy.address()),
            (None, Some(child)) => child.url().to_owned(),
            // Those that it is asked for are started before.
            (None, None) => String::new(),
        }
    }

    /// The process.
    pub fn child(&mut self, module: Module) -> anyhow::Result<&mut Child> {
        self.children.get_mut(&module).context("it is not running")
    }

    /// The network before it.
    pub fn network(&self, module: Module) -> anyhow::Result<&Proxy> {
        self.proxies.get(&module).context("it is not proxied")
    }

    /// A customer of the shop.
    pub fn customer(&self) -> anyhow::Result<Customer> {
        Customer::of(&self.url(Module::Gateway))
    }
}

/// A customer, who asks the shop for this and that.
#[derive(Clone, Debug)]
pub struct Customer {
    /// The shop.
    pub url: String,
    http: Client,
}

impl Customer {
    /// Of the shop at this address.
    pub fn of(url: &str) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { url: url.to_owned(), http })
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(self.http.get(format!("{}{path}", self.url)).send().await?)
    }

    /// Its body, if it was answered with 200.
    pub async fn must_get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path).await?;
        ensure!(answer.status() == 200, "{path}: {} {}", answer.status(), answer.text().await?);
        Ok(answer.json().await?)
    }

    /// A PUT of JSON, which must go well.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let put = self.http.request(Method::PUT, format!("{}{path}", self.url));
        let answer = put.json(body).send().await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        Ok(answer.json().await?)
    }

    /// A POST without a body; its status. Nothing if the connection broke.
    pub async fn post(&self, path: &str) -> Option<u16> {
        let post = self.http.post(format!("{}{path}", self.url)).send().await;
        post.ok().map(|it| it.status().as_u16())
    }

    /// Puts products 1 to this up for sale.
    pub async fn fill(&self, products: i64) -> anyhow::Result<()> {
        for id in 1..=products {
            let product = json!({ "name": format!("product {id}"), "cents": 1_000 + id });
            self.put(&format!("/products/{id}"), &product).await?;
        }
        Ok(())
    }

    /// Orders one of a product under this key.
    pub async fn buy(&self, customer: i64, product: i64, key: &str) -> anyhow::Result<Response> {
        let order = json!({ "customer": customer, "product": product, "quantity": 1 });
        let post = self.http.post(format!("{}/orders", self.url)).json(&order);
        Ok(post.header("idempotency-key", key).send().await?)
    }

    /// The same, which must go well.
    pub async fn must_buy(&self, customer: i64, product: i64, key: &str) -> anyhow::Result<Value> {
        let answer = self.buy(customer, product, key).await?;
        ensure!(answer.status() == 201, "{key}: {} {}", answer.status(), answer.text().await?);
        Ok(answer.json().await?)
    }

    /// A request with this trace: the trace as the shop tells it, after the request.
    pub async fn traced(&self, path: &str, trace: u128) -> anyhow::Result<Value> {
        let parent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
        let get = self.http.get(format!("{}{path}", self.url)).header("traceparent", parent);
        get.send().await?;
        self.must_get(&format!("/trace/{trace:032x}")).await
    }
}

/// An exchange and queues, deleted in the end.
pub async fn queues(lab: &Lab) -> anyhow::Result<Queues> {
    let mut queues = lab.queues().await?;
    let prefix = queues.prefix().to_owned();
    let names = ["orders", "recommendations"].map(|name| format!("{prefix}.{name}"));
    queues.expect(names, [format!("{prefix}.events")])?;
    Ok(queues)
}

/// Payments that refuse everything, and count their calls.
#[derive(Debug)]
pub struct Refusing {
    served: Here,
    calls: Arc<AtomicU64>,
}

impl Refusing {
    /// Begins to refuse.
    pub async fn start() -> anyhow::Result<Self> {
        let calls = Arc::new(AtomicU64::new(0));
        let refuse = async |State(calls): State<Arc<AtomicU64>>| {
            calls.fetch_add(1, Ordering::Relaxed);
            StatusCode::SERVICE_UNAVAILABLE
        };
        let router = Router::new().route("/internal/payments", post(refuse));
        Ok(Self { served: here(router.with_state(Arc::clone(&calls))).await?, calls })
    }

    /// Their address.
    pub fn url(&self) -> String {
        format!("http://{}", self.served.host)
    }

    /// How often they were called.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}
