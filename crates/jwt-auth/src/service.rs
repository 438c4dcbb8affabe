//! How is the service put together, started and stopped?

use std::{sync::Arc, time::Duration};

use axum::http::HeaderValue;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use crate::{
    claims::Policy,
    deny::DenyList,
    error::Error,
    housekeeping,
    issuer::Issuer,
    jwks::Remote,
    keyring::Keyring,
    password::{Cost, Passwords},
    schedule::Schedule,
    sessions::Sessions,
    store::Store,
    throttle::Limits,
    verifier::Verifier,
};

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who makes the tokens, and for whom.
    pub issuer: String,
    /// The service that the tokens are for.
    pub audience: String,
    /// When keys and tokens end.
    pub schedule: Schedule,
    /// How long a refresh token lives if it is not used.
    pub refresh_life: Duration,
    /// How far apart two uses of a refresh token may be.
    pub grace: Duration,
    /// What a password costs.
    pub cost: Cost,
    /// Failed logins that are free.
    pub limits: Limits,
}

/// What the handlers share.
pub struct Service {
    pub(crate) sessions: Sessions,
    pub(crate) verifier: Verifier,
    pub(crate) key_set_caching: HeaderValue,
}

/// What runs in the background.
struct Background {
    tasks: TaskTracker,
    /// Tells it to stop, also when the app is only dropped.
    running: DropGuard,
    stop: CancellationToken,
}

impl Background {
    fn new() -> Self {
        let stop = CancellationToken::new();
        Self { tasks: TaskTracker::new(), running: stop.clone().drop_guard(), stop }
    }

    async fn stop(self) {
        drop(self.running);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The running service: accounts, sessions, keys.
pub struct App {
    service: Arc<Service>,
    background: Background,
}

impl App {
    /// Starts what runs in the background. Must be called within a tokio runtime. The database need not be there yet;
    /// the error is a malformed URL, or a cost that Argon2 does not know.
    pub fn start(database: &str, deny: Option<DenyList>, config: &Config) -> Result<Self, Error> {
        let store = Arc::new(Store::new(database).map_err(Error::internal)?);
        let leeway = config.schedule.leeway;
        let policy = Arc::new(Policy::new(&config.issuer, &config.audience, leeway));
        let issuer = Issuer::new(Arc::clone(&store), Arc::clone(&policy), config.schedule);
        let verifier = Verifier::new(policy, Arc::clone(issuer.keyring()), deny.clone());

        let background = Background::new();
        let every = config.schedule.key_set_max_age;
        let keyring = Arc::clone(issuer.keyring());
        let stop = &background.stop;
        background.tasks.spawn(housekeeping::load_keys(keyring, every, stop.clone()));
        background.tasks.spawn(housekeeping::sweep(Arc::clone(&store), stop.clone()));

        let max_age = format!("public, max-age={}", every.as_secs());
        let service = Service {
            sessions: Sessions {
                store,
                issuer,
                passwords: Passwords::new(config.cost)?,
                limits: config.limits,
                leeway,
                refresh_life: config.refresh_life,
                grace: config.grace,
                deny,
            },
            verifier,
            key_set_caching: HeaderValue::try_from(max_age).map_err(Error::internal)?,
        };
        Ok(Self { service: Arc::new(service), background })
    }

    /// What the handlers share.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Ends what runs in the background. To be called when no request is in flight any more.
    pub async fn stop(self) {
        self.background.stop().await;
    }
}

/// Another service, which has nothing but the address of the key set.
pub struct Guarded {
    verifier: Verifier,
    background: Background,
}

impl Guarded {
    /// Starts what keeps the keys fresh.
    pub fn start(key_set: Url, deny: Option<DenyList>, config: &Config) -> Result<Self, Error> {
        let leeway = config.schedule.leeway;
        let policy = Arc::new(Policy::new(&config.issuer, &config.audience, leeway));
        let remote = Remote::new(key_set)?;
        let keyring = Arc::new(Keyring::new(Box::new(move || {
            let remote = remote.clone();
            Box::pin(async move { remote.fetch().await })
        })));
        let background = Background::new();
        let every = config.schedule.key_set_max_age;
        let stop = background.stop.clone();
        background.tasks.spawn(housekeeping::load_keys(Arc::clone(&keyring), every, stop));
        Ok(Self { verifier: Verifier::new(policy, keyring, deny), background })
    }

    /// Who says which tokens are good.
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// Ends what runs in the background.
    pub async fn stop(self) {
        self.background.stop().await;
    }
}
