//! What happens to a thief who has copied a refresh token, and to the user?

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lab::{Experiment, Lab, Sabotage, database::Database};
use tokio::{task::JoinSet, time::sleep};

use super::fixture::Fixture;
use crate::cases::client::{Client, Tokens, tokens};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that use one token at the same moment, half of them at each of two processes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=1000))]
    clients: u16,
    /// Times that they do so
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of grace where thieves are caught; where clients race, it is the service's own 10
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    grace: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "refresh-reuse",
        "A thief and the user both use one refresh token: whoever comes second ends both. A hundred refreshes of one \
         token at once yield one session",
        &["--clients", "40", "--rounds", "3", "--grace", "0.2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/refresh.rs",
        replace: r"} else {
            Verdict::Reuse",
        with: r"} else {
            Verdict::Expired",
        check: "the thief comes second",
    })
}

/// Four processes on one database: a lock inside a process would not help, the lock on the row does.
struct Scene<'a> {
    /// With the service's own grace: however slow this machine is, a race ends within it.
    lenient: [Client; 2],
    /// With a short one, which is soon over.
    strict: [Client; 2],
    /// How long to wait until it is.
    over: Duration,
    database: &'a Database,
    logins: AtomicU32,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let grace = params.grace.to_string();
    // All users come from this machine.
    let many = ["--failures-per-client", "1000000"];
    let lenient = ["--grace-seconds", "10", many[0], many[1]];
    let strict = ["--grace-seconds", &grace, many[0], many[1]];
    let ((_one, one), (_two, two), (_three, three), (_four, four)) = tokio::try_join!(
        fixture.start(&lenient),
        fixture.start(&lenient),
        fixture.start(&strict),
        fixture.start(&strict),
    )?;
    let scene = Scene {
        lenient: [one, two],
        strict: [three, four],
        over: Duration::from_secs_f64(params.grace + 0.1),
        database: &fixture.database,
        logins: 0.into(),
    };

    lab.progress(0, 4, "a thief and a user, in either order");
    let (thief_second, user_second, early) = tokio::try_join!(
        scene.after_the_grace(),
        scene.after_the_grace(),
        scene.within_the_grace()
    )?;
    // It is the same for the service: it cannot know which of the two it speaks to.
    for (second, seen) in [("the thief", thief_second), ("the user", user_second)] {
        let expected = "second use 401, then 401 for the first and 401 for the second".to_owned();
        lab.check_eq(format!("{second} comes second"), expected, seen);
    }
    lab.check_eq(
        "a thief within the grace gets in, and is found out when the user has refreshed once more",
        "thief 200, user 200, thief 401, user 401".to_owned(),
        early,
    );

    lab.progress(1, 4, format!("{} clients with one fresh token", params.clients));
    let mut fresh = Tally::default();
    for _ in 0..params.rounds {
        fresh.add(&scene.race(params.clients, false).await?);
    }
    lab.progress(2, 4, format!("{} clients with one used token", params.clients));
    let used = scene.race(params.clients, true).await?;
    lab.progress(3, 4, "refreshes that race with a logout");
    let mut after_logout = Tally::default();
    for _ in 0..params.rounds {
        after_logout.add(&scene.logout_race(params.clients).await?);
    }
    report(&lab, &params, &fresh, &used, &after_logout);
    Ok(())
}

fn report(lab: &Lab, params: &Params, fresh: &Tally, used: &Tally, after_logout: &Tally) {
    let all = u64::from(params.clients) * u64::from(params.rounds);
    lab.figure("refreshes that raced for a fresh token", all as f64, "");
    lab.check_eq("of them got a pair", all, fresh.pairs);
    lab.check_eq("sessions after each race", u64::from(params.rounds), fresh.sessions);
    lab.check_eq(
        "generations that all of them together moved on",
        u64::from(params.rounds),
        fresh.generations,
    );
    lab.check_eq("pairs that a used token gets, at once with a hundred others", 0, used.pairs);
    lab.check_eq("sessions that live on after it", 0, used.alive);
    lab.check(
        "refreshes won and lost against a logout",
        format!("{all} in all, and some came first"),
        format!("{} pairs, {} refused", after_logout.pairs, after_logout.refused),
        after_logout.pairs + after_logout.refused == all && after_logout.pairs > 0,
    );
    lab.check_eq("refresh tokens that work after the logout", 0, after_logout.usable);
}

/// What a race left behind.
#[derive(Default)]
struct Tally {
    pairs: u64,
    refused: u64,
    sessions: u64,
    generations: u64,
    alive: u64,
    usable: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.refused += other.refused;
        self.sessions += other.sessions;
        self.generations += other.generations;
        self.alive += other.alive;
        self.usable += other.usable;
    }
}

/// All clients refresh at once, half of them at each process; one logs out in their midst, if it is to.
async fn all_at_once(
    services: &[Client; 2],
    clients: u16,
    pair: &Tokens,
    logout: Option<u16>,
) -> anyhow::Result<Vec<Result<Tokens, u16>>> {
    let (mut race, mut leaving) = (JoinSet::new(), JoinSet::new());
    for client in 0..clients {
        let (service, token) =
            (services[usize::from(client % 2)].clone(), pair.refresh_token.clone());
        if logout == Some(client) {
            let (service, token) = (service.clone(), pair.access_token.clone());
            leaving.spawn(async move { service.log_out(&token).await });
        }
        race.spawn(async move { refresh(&service, &token).await });
    }
    for left in leaving.join_all().await {
        left?.error_for_status()?;
    }
    race.join_all().await.into_iter().collect()
}

/// A new pair, or the status that came instead.
async fn refresh(service: &Client, token: &str) -> anyhow::Result<Result<Tokens, u16>> {
    let response = service.refresh(token).await?;
    match response.status().as_u16() {
        200 => Ok(Ok(tokens(response).await?)),
        status => Ok(Err(status)),
    }
}

impl Scene<'_> {
    /// A user of their own, with a session.
    async fn login(&self) -> anyhow::Result<(String, Tokens)> {
        let n = self.logins.fetch_add(1, Ordering::Relaxed);
        let email = format!("{n}@example.com");
        let pair = self.lenient[0].join(&email).await?;
        Ok((email, pair))
    }

    /// Somebody refreshes; somebody else uses the same token when the grace is over.
    async fn after_the_grace(&self) -> anyhow::Result<String> {
        let (_, stolen) = self.login().await?;
        let first = refresh(&self.strict[0], &stolen.refresh_token).await?;
        let first = first.map_err(|status| anyhow::anyhow!("the first got {status}"))?;
        sleep(self.over).await;
        let second = status(&refresh(&self.strict[1], &stolen.refresh_token).await?);
        let first = status(&refresh(&self.strict[0], &first.refresh_token).await?);
        let again = status(&refresh(&self.strict[1], &stolen.refresh_token).await?);
        Ok(format!("second use {second}, then {first} for the first and {again} for the second"))
    }

    /// The thief is quick. Then the user refreshes as usual, and later the thief does.
    async fn within_the_grace(&self) -> anyhow::Result<String> {
        let (_, stolen) = self.login().await?;
        let user = refresh(&self.lenient[0], &stolen.refresh_token).await?;
        let thief = refresh(&self.lenient[1], &stolen.refresh_token).await?;
        let mut seen = vec![format!("thief {}", status(&thief))];
        let (Ok(user), Ok(thief)) = (user, thief) else { return Ok(seen.join(", ")) };
        let user = refresh(&self.lenient[0], &user.refresh_token).await?;
        seen.push(format!("user {}", status(&user)));
        sleep(self.over).await;
        let thief = refresh(&self.strict[1], &thief.refresh_token).await?;
        seen.push(format!("thief {}", status(&thief)));
        if let Ok(user) = user {
            let user = refresh(&self.strict[0], &user.refresh_token).await?;
            seen.push(format!("user {}", status(&user)));
        }
        Ok(seen.join(", "))
    }

    /// All clients use one token at once: a fresh one, or one that was used long ago.
    async fn race(&self, clients: u16, used: bool) -> anyhow::Result<Tally> {
        let (email, pair) = self.login().await?;
        if used {
            let _ = refresh(&self.strict[0], &pair.refresh_token).await?;
            sleep(self.over).await;
        }
        let services = if used { &self.strict } else { &self.lenient };
        let mut tally = Tally::default();
        for answer in all_at_once(services, clients, &pair, None).await? {
            tally.count(&answer);
        }
        let after = self.sessions(&email).await?;
        Ok(Tally { pairs: tally.pairs, refused: tally.refused, ..after })
    }

    /// All clients refresh while one logs out. Afterwards every token that was given out is tried.
    async fn logout_race(&self, clients: u16) -> anyhow::Result<Tally> {
        let (_, pair) = self.login().await?;
        let mut tally = Tally::default();
        let middle = Some(clients / 2);
        for answer in all_at_once(&self.lenient, clients, &pair, middle).await? {
            tally.count(&answer);
            if let Ok(pair) = answer {
                let usable = refresh(&self.lenient[0], &pair.refresh_token).await?.is_ok();
                tally.usable += u64::from(usable);
            }
        }
        Ok(tally)
    }

    /// The user's sessions, as the database has them.
    async fn sessions(&self, email: &str) -> anyhow::Result<Tally> {
        let pool = self.database.pool().await?;
        let (sessions, generations, alive): (i64, i64, i64) = sqlx::query_as(
            r#"
            select
                count(*),
                coalesce(sum(sessions.generation), 0)::bigint,
                count(*) filter (where sessions.revoked_at is null)
            from sessions
            join users on users.id = sessions.user_id
            where users.email = $1
            "#,
        )
        .bind(email)
        .fetch_one(&pool)
        .await?;
        pool.close().await;
        Ok(Tally {
            sessions: sessions.unsigned_abs(),
            generations: generations.unsigned_abs(),
            alive: alive.unsigned_abs(),
            ..Tally::default()
        })
    }
}

impl Tally {
    fn count(&mut self, answer: &Result<Tokens, u16>) {
        match answer {
            Ok(_) => self.pairs += 1,
            Err(401) => self.refused += 1,
            Err(_) => {}
        }
    }
}

fn status(answer: &Result<Tokens, u16>) -> u16 {
    answer.as_ref().map_or_else(|&status| status, |_| 200)
}
