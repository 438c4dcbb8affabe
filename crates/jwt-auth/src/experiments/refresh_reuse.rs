//! What happens to a thief who has copied a refresh token, and to the user?

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lab::{Experiment, Lab, database::Database};
use tokio::{task::JoinSet, time::sleep};

use super::client::{Api, CHEAP, Tokens};

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
         token at once yield one family",
        &["--clients", "40", "--rounds", "3", "--grace", "0.2"],
        run,
    )
}

/// Four processes on one database: a lock inside a process would not help, the lock on the row does.
struct Scene {
    /// With the service's own grace: however slow this machine is, a race ends within it.
    lenient: [Api; 2],
    /// With a short one, which is soon over.
    strict: [Api; 2],
    /// How long to wait until it is.
    over: Duration,
    database: Database,
    logins: AtomicU32,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let grace = params.grace.to_string();
    let serve = |grace: &str| {
        lab.serve().database(&database).args(&CHEAP).args(&["--grace-seconds", grace]).start()
    };
    let (one, two, three, four) =
        tokio::try_join!(serve("10"), serve("10"), serve(&grace), serve(&grace))?;
    let scene = Scene {
        lenient: [Api::of(&one)?, Api::of(&two)?],
        strict: [Api::of(&three)?, Api::of(&four)?],
        over: Duration::from_secs_f64(params.grace + 0.1),
        database,
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
    lab.check_eq("families after each race", u64::from(params.rounds), fresh.families);
    lab.check_eq(
        "generations that all of them together moved on",
        u64::from(params.rounds),
        fresh.generations,
    );
    lab.check_eq("pairs that a used token gets, at once with a hundred others", 0, used.pairs);
    lab.check_eq("families that live on after it", 0, used.alive);
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
    families: u64,
    generations: u64,
    alive: u64,
    usable: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.refused += other.refused;
        self.families += other.families;
        self.generations += other.generations;
        self.alive += other.alive;
        self.usable += other.usable;
    }
}

/// All clients refresh at once, half of them at each process; one logs out in their midst, if it is to.
async fn all_at_once(
    apis: &[Api; 2],
    clients: u16,
    tokens: &Tokens,
    logout: Option<u16>,
) -> anyhow::Result<Vec<Result<Tokens, u16>>> {
    let (mut race, mut leaving) = (JoinSet::new(), JoinSet::new());
    for client in 0..clients {
        let (api, token) = (apis[usize::from(client % 2)].clone(), tokens.refresh_token.clone());
        if logout == Some(client) {
            let (api, body) = (api.clone(), serde_json::json!({ "refresh_token": token }));
            leaving.spawn(async move {
                api.post_patiently("logout", &body).await?.0.error_for_status()
            });
        }
        race.spawn(async move { api.refresh(&token).await });
    }
    for left in leaving.join_all().await {
        left?;
    }
    race.join_all().await.into_iter().collect()
}

impl Scene {
    /// A user of their own, with a session.
    async fn login(&self) -> anyhow::Result<(String, Tokens)> {
        let n = self.logins.fetch_add(1, Ordering::Relaxed);
        let email = format!("{n}@example.com");
        self.lenient[0].register(&email).await?;
        let tokens = self.lenient[0].login(&email).await?;
        Ok((email, tokens))
    }

    /// Somebody refreshes; somebody else uses the same token when the grace is over.
    async fn after_the_grace(&self) -> anyhow::Result<String> {
        let (_, stolen) = self.login().await?;
        let first = self.strict[0].refresh(&stolen.refresh_token).await?;
        let first = first.map_err(|status| anyhow::anyhow!("the first got {status}"))?;
        sleep(self.over).await;
        let second = status(&self.strict[1].refresh(&stolen.refresh_token).await?);
        let first = status(&self.strict[0].refresh(&first.refresh_token).await?);
        let again = status(&self.strict[1].refresh(&stolen.refresh_token).await?);
        Ok(format!("second use {second}, then {first} for the first and {again} for the second"))
    }

    /// The thief is quick. Then the user refreshes as usual, and later the thief does.
    async fn within_the_grace(&self) -> anyhow::Result<String> {
        let (_, stolen) = self.login().await?;
        let user = self.lenient[0].refresh(&stolen.refresh_token).await?;
        let thief = self.lenient[1].refresh(&stolen.refresh_token).await?;
        let mut seen = vec![format!("thief {}", status(&thief))];
        let (Ok(user), Ok(thief)) = (user, thief) else { return Ok(seen.join(", ")) };
        let user = self.lenient[0].refresh(&user.refresh_token).await?;
        seen.push(format!("user {}", status(&user)));
        sleep(self.over).await;
        let thief = self.strict[1].refresh(&thief.refresh_token).await?;
        seen.push(format!("thief {}", status(&thief)));
        if let Ok(user) = user {
            let user = self.strict[0].refresh(&user.refresh_token).await?;
            seen.push(format!("user {}", status(&user)));
        }
        Ok(seen.join(", "))
    }

    /// All clients use one token at once: a fresh one, or one that was used long ago.
    async fn race(&self, clients: u16, used: bool) -> anyhow::Result<Tally> {
        let (email, tokens) = self.login().await?;
        if used {
            let _ = self.strict[0].refresh(&tokens.refresh_token).await?;
            sleep(self.over).await;
        }
        let apis = if used { &self.strict } else { &self.lenient };
        let mut tally = Tally::default();
        for answer in all_at_once(apis, clients, &tokens, None).await? {
            tally.count(&answer);
        }
        let after = self.families(&email).await?;
        Ok(Tally { pairs: tally.pairs, refused: tally.refused, ..after })
    }

    /// All clients refresh while one logs out. Afterwards every token that was given out is tried.
    async fn logout_race(&self, clients: u16) -> anyhow::Result<Tally> {
        let (_, tokens) = self.login().await?;
        let mut tally = Tally::default();
        let middle = Some(clients / 2);
        for answer in all_at_once(&self.lenient, clients, &tokens, middle).await? {
            tally.count(&answer);
            if let Ok(pair) = answer {
                let usable = self.lenient[0].refresh(&pair.refresh_token).await?.is_ok();
                tally.usable += u64::from(usable);
            }
        }
        Ok(tally)
    }

    /// The user's families, as the database has them.
    async fn families(&self, email: &str) -> anyhow::Result<Tally> {
        let pool = self.database.pool().await?;
        let (families, generations, alive): (i64, i64, i64) = sqlx::query_as(
            r#"
            select
                count(*),
                coalesce(sum(families.generation), 0)::bigint,
                count(*) filter (where families.revoked_at is null)
            from families
            join users on users.id = families.user_id
            where users.email = $1
            "#,
        )
        .bind(email)
        .fetch_one(&pool)
        .await?;
        pool.close().await;
        Ok(Tally {
            families: families.unsigned_abs(),
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
