//! What does it cost to verify a token, beside the bare library and beside looking a session up?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp,
};
use lab::{
    Experiment, Lab, Need, Sabotage, Service, Target,
    load::{self, Outcome, Stop, median},
};
use redis::AsyncCommands;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{
    claims::{CLIENT_ID, Claims, Names, Policy, TYPE},
    jwks::PublicKey,
    keyring::Keyring,
    verifier::Verifier,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.4, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each, by turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Clients that look up at the same time where many do, each on a connection of its own
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=64))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "verify",
        "Verifying a token costs little more than a bare jsonwebtoken::decode, and about as much time as one look-up of a \
         session in a Redis next door. Asked by many, that Redis answers more than a core verifies: what a token saves \
         is the server, and the way to it",
        &["--seconds", "0.1", "--rounds", "2", "--clients", "8"],
        run,
    )
    .needs(&[Need::Shared(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/claims.rs",
        replace: "decode::<Claims>(token, key, &self.0)",
        with: "jsonwebtoken::dangerous::insecure_decode::<Claims>(token)",
        check: "a changed token is believed by the library, by us",
    })
}

/// The same token for all, with its session in both servers.
#[derive(Clone)]
struct Setting {
    token: Arc<str>,
    key: Arc<DecodingKey>,
    validation: Arc<Validation>,
    verifier: Verifier,
    session: Uuid,
    redis_key: String,
}

const ISSUER: &str = "https://auth.example";
const AUDIENCE: &str = "https://api.example";

impl Setting {
    fn new(redis_prefix: &str) -> anyhow::Result<Self> {
        let private = SigningKey::from_bytes(&[42; 32]);
        let public = PublicKey::new(private.verifying_key().to_bytes());
        let now = get_current_timestamp();
        let session = Uuid::now_v7();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: Uuid::now_v7(),
            client_id: CLIENT_ID.to_owned(),
            exp: now + 900,
            nbf: now,
            iat: now,
            jti: Uuid::new_v4(),
            sid: session,
            email: "ann@example.com".to_owned(),
        };
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(public.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let encoding = EncodingKey::from_ed_der(private.to_pkcs8_der()?.as_bytes());
        let token = encode(&header, &claims, &encoding)?;
        // The same checks for both: the library is compared at its strictest.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_nbf = true;
        let (issuer, audience) = (ISSUER.to_owned(), AUDIENCE.to_owned());
        let policy = Policy::new(&Names { issuer, audience }, 30);
        let key = Arc::new(DecodingKey::from_ed_der(&public.bytes));
        let keyring = Keyring::new(Box::new(move || {
            let public = public.clone();
            Box::pin(async move { Ok(vec![public]) })
        }));
        Ok(Self {
            token: token.into(),
            key,
            validation: Arc::new(validation),
            verifier: Verifier::new(policy, Arc::new(keyring), None),
            session,
            redis_key: format!("{redis_prefix}session"),
        })
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let database = lab.database().await?;
    let setting = Setting::new(keys.prefix())?;
    let mut redis = keys.connection().await?;
    let _: () = redis.set(&setting.redis_key, "ann@example.com").await?;
    lab.server(Service::Postgres).await?;
    let mut postgres = PgConnection::connect(database.url()).await?;
    put_session(&mut postgres, setting.session).await?;

    let names = [
        "jsonwebtoken::decode",
        "our verifier",
        "Redis, one client",
        "PostgreSQL, one client",
        "Redis, many clients",
        "PostgreSQL, many clients",
    ];
    let mut rates: [Vec<f64>; 6] = Default::default();
    let (mut failed, mut rows) = (0, Vec::new());
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured by turns");
        let [bare, ours] = verifications(&setting, params.seconds).await?;
        rates[0].push(bare);
        rates[1].push(ours);
        for (n, clients) in [(2, 1), (4, params.clients)] {
            let mut connections = Vec::new();
            for _ in 0..clients {
                connections.push((keys.connection().await?, setting.clone()));
            }
            let outcome = from_redis(connections, params.seconds).await?;
            rates[n].push(outcome.throughput());
            failed += outcome.failed;
            rows.push([vec![names[n].to_owned()], outcome.cells()].concat());
            let mut connections = Vec::new();
            for _ in 0..clients {
                connections.push((PgConnection::connect(database.url()).await?, setting.clone()));
            }
            let outcome = from_postgres(connections, params.seconds).await?;
            rates[n + 1].push(outcome.throughput());
            failed += outcome.failed;
            rows.push([vec![names[n + 1].to_owned()], outcome.cells()].concat());
        }
    }
    let ratio = |n: usize| {
        median(rates[1].iter().zip(&rates[n]).map(|(ours, other)| ours / other).collect())
    };
    for (name, rate) in names.iter().zip(&rates) {
        lab.figure(format!("{name}, median"), median(rate.clone()), "/s");
    }
    lab.table("Each look-up", &[&["session in"][..], &Outcome::COLUMNS].concat(), rows);
    lab.figure_with_target(
        "our verifier ÷ jsonwebtoken::decode, median",
        ratio(0),
        "",
        Target::AtLeast(0.9),
    );
    for (n, name) in names.iter().enumerate().skip(2) {
        lab.figure(format!("our verifier, on one core ÷ {name}, median"), ratio(n), "");
    }
    lab.check_eq("look-ups that failed or found another user", 0, failed);
    checks(&lab, &setting).await
}

/// What was measured has to be the real thing: both believe the token, and neither a changed one.
async fn checks(lab: &Lab, setting: &Setting) -> anyhow::Result<()> {
    let changed = with_another_user(&setting.token)?;
    for (what, token, expected) in
        [("the token", &*setting.token, true), ("a changed token", &changed, false)]
    {
        let bare = decode::<Claims>(token, &setting.key, &setting.validation).is_ok();
        let ours = setting.verifier.verify(token).await.is_ok();
        lab.check_eq(
            format!("{what} is believed by the library, by us"),
            format!("{expected}, {expected}"),
            format!("{bare}, {ours}"),
        );
    }
    Ok(())
}

/// The same header and signature around other claims, which are whole: only the signature tells.
fn with_another_user(token: &str) -> anyhow::Result<String> {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        bail!("three parts");
    };
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let claims = Claims { email: "eve@example.com".to_owned(), ..claims };
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?);
    Ok(format!("{header}.{claims}.{signature}"))
}

/// Verifications a second on this one thread, by the library and by us.
///
/// In batches of a millisecond or so, by turns, and the batch in the middle counts: what else this machine does hits
/// some of them and leaves the median alone.
async fn verifications(setting: &Setting, seconds: f64) -> anyhow::Result<[f64; 2]> {
    const BATCH: u32 = 20;
    let (end, mut times) =
        (Instant::now() + Duration::from_secs_f64(2.0 * seconds), [vec![], vec![]]);
    while Instant::now() < end {
        let begun = Instant::now();
        for _ in 0..BATCH {
            let token = decode::<Claims>(&*setting.token, &setting.key, &setting.validation)?;
            ensure!(token.claims.sid == setting.session, "another session");
        }
        let between = Instant::now();
        for _ in 0..BATCH {
            let claims = setting.verifier.verify(&setting.token).await?;
            ensure!(claims.sid == setting.session, "another session");
        }
        times[1].push(between.elapsed().as_secs_f64());
        times[0].push((between - begun).as_secs_f64());
        // Others on this runtime get their turn.
        tokio::task::yield_now().await;
    }
    Ok(times.map(|times| f64::from(BATCH) / median(times)))
}

type Redis = redis::aio::MultiplexedConnection;

async fn from_redis(clients: Vec<(Redis, Setting)>, seconds: f64) -> anyhow::Result<Outcome> {
    let stop = Stop::After(Duration::from_secs_f64(seconds));
    load::closed(clients, stop, |(redis, setting)| {
        Box::pin(async move {
            let email: String = redis.get(&setting.redis_key).await?;
            ensure!(email == "ann@example.com", "{email}");
            Ok(())
        })
    })
    .await
}

async fn from_postgres(
    clients: Vec<(PgConnection, Setting)>,
    seconds: f64,
) -> anyhow::Result<Outcome> {
    let stop = Stop::After(Duration::from_secs_f64(seconds));
    load::closed(clients, stop, |(postgres, setting)| {
        Box::pin(async move {
            // As a service with sessions would: by primary key, with the user and the end.
            let email: String = sqlx::query_scalar(
                r#"
                select users.email
                from sessions
                join users on users.id = sessions.user_id
                where sessions.id = $1
                    and sessions.revoked_at is null
                    and sessions.expires_at > now()
                "#,
            )
            .bind(setting.session)
            .fetch_one(postgres)
            .await?;
            ensure!(email == "ann@example.com", "{email}");
            Ok(())
        })
    })
    .await
}

async fn put_session(postgres: &mut PgConnection, session: Uuid) -> anyhow::Result<()> {
    let user = Uuid::now_v7();
    sqlx::query("insert into users (id, email, mailbox, password_hash) values ($1, $2, $2, '')")
        .bind(user)
        .bind("ann@example.com")
        .execute(&mut *postgres)
        .await?;
    sqlx::query(
        "insert into sessions (id, user_id, expires_at, ends_at) values ($1, $2, 'infinity', 'infinity')",
    )
    .bind(session)
    .bind(user)
    .execute(postgres)
    .await?;
    Ok(())
}
