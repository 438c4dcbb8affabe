//! What is kept? Every SQL statement of the service.
//!
//! Invariant: whoever decides about a user holds the lock of its row until the decision is written.

use std::{collections::HashMap, time::Duration};

use edge::database::{Database, Limits};
use sqlx::{PgConnection as Tx, Postgres, QueryBuilder, migrate::Migrator, types::Json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::idempotency::Claim;
use crate::links::Linked;
use crate::order::{Move, Order};
use crate::page::PageQuery;
use crate::user::{NewUser, User};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database; leaves room for an answer within the request's five seconds.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };

/// The users and their orders.
#[derive(Clone, Debug)]
pub struct Store(Database<Error>);

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        Ok(Self(Database::new(url, LIMITS)?))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    /// Runs the work as one transaction. A refusal is committed too: it is an answer, and a key may be kept with it. Where a
    /// statement has failed, PostgreSQL makes a rollback of the commit.
    async fn transaction<T>(&self, work: impl AsyncFnOnce(&mut Tx) -> Result<T>) -> Result<T> {
        self.0.transaction(async |tx| Ok(work(tx).await)).await?
    }

    // ANCHOR: create
    /// A new user; or, if the key has come before, what it got then.
    pub async fn create(&self, new: &NewUser, claim: Option<Claim>) -> Result<User> {
        self.transaction(async |tx| {
            let Some((key, fingerprint)) = claim else {
                return write(tx, INSERT, Uuid::now_v7(), new).await?.ok_or(Error::EMAIL_TAKEN);
            };
            // A lock that is not waited for: of two with one key at the same moment, the second is told so.
            let lock = "select pg_try_advisory_xact_lock(hashtextextended($1, 0))";
            if !sqlx::query_scalar(lock).bind(&key).fetch_one(&mut *tx).await? {
                return Err(Error::KEY_IN_USE);
            }
            let find = "select fingerprint, answer from idempotency_keys where key = $1";
            let found = sqlx::query_as::<_, (Vec<u8>, Json<Option<User>>)>(find).bind(&key);
            match found.fetch_optional(&mut *tx).await? {
                Some((before, _)) if before != fingerprint => return Err(Error::KEY_REUSED),
                Some((_, Json(user))) => return user.ok_or(Error::EMAIL_TAKEN),
                None => {}
            }
            let user = write(tx, INSERT, Uuid::now_v7(), new).await?;
            // In the transaction that makes the user: a crash leaves both or none.
            let add = "insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)";
            sqlx::query(add).bind(&key).bind(fingerprint).bind(Json(&user)).execute(tx).await?;
            user.ok_or(Error::EMAIL_TAKEN)
        })
        .await
    }
    // ANCHOR_END: create

    /// The user.
    pub async fn find(&self, id: Uuid) -> Result<User> {
        let find = sqlx::query_as(FIND).bind(id);
        let user = self.0.within(async |it| find.fetch_optional(it).await).await?;
        user.ok_or(Error::NOT_FOUND)
    }

    // ANCHOR: page
    /// The users of this page, and one more if there are more. The place is a range of an index, however deep it is:
    /// `offset` would read and throw away every row before it, and count wrongly when one of them goes.
    pub async fn page(&self, page: &PageQuery) -> Result<Vec<User>> {
        let column = page.column;
        let (than, order) = if page.descending { ("<", "desc") } else { (">", "asc") };
        let mut query = QueryBuilder::<Postgres>::new(
            "select id, name, email, tags, version, created_at, updated_at from users where true",
        );
        if let Some(email) = &page.email {
            query.push(" and email_key = ").push_bind(email);
        }
        if let Some(after) = &page.after {
            query.push(format!(" and ({column}, id) {than} ("));
            match column {
                "name" => query.push_bind(&after.name),
                _ => query.push_bind(after.created_at),
            };
            query.push(", ").push_bind(after.id).push(")");
        }
        query.push(format!(" order by {column} {order}, id {order} limit "));
        query.push_bind(i64::from(page.limit) + 1);
        let users = async |it: &mut Tx| query.build_query_as().fetch_all(it).await;
        let mut users: Vec<User> = self.0.within(users).await?;
        if page.with_orders {
            let ids: Vec<_> = users.iter().map(|user| user.id).collect();
            let mut orders = self.orders_of(&ids).await?;
            for user in &mut users {
                user.orders = Some(orders.remove(&user.id).unwrap_or_default());
            }
        }
        Ok(users)
    }
    // ANCHOR_END: page

    // ANCHOR: replace
    /// Lets `decide` see the user, if there is one, and makes it what that returns; whether it was created. The row is
    /// locked in between: without the lock, two with the same `If-Match` could both find it right.
    pub async fn replace(
        &self,
        id: Uuid,
        decide: impl FnOnce(Option<&User>) -> Result<NewUser>,
    ) -> Result<(User, bool)> {
        self.transaction(async |tx| {
            let user = lock(tx, id).await?;
            let new = decide(user.as_ref())?;
            let Some(user) = user else {
                let created = write(tx, INSERT, id, &new).await?.map(|user| (user, true));
                // The address may be taken by this very request, which came twice: then the user is there.
                let there = created.is_none() && lock(tx, id).await?.is_some();
                return created.ok_or(if there { Error::CHANGED } else { Error::EMAIL_TAKEN });
            };
            Ok((write(tx, UPDATE, id, &new).await?.unwrap_or(user), false))
        })
        .await
    }
    // ANCHOR_END: replace

    /// Takes the user away, with the orders that are done, if `may` says so. One that has gone is gone.
    pub async fn delete(&self, id: Uuid, may: impl FnOnce(&User) -> Result<()>) -> Result<()> {
        self.transaction(async |tx| {
            // Waits for orders that are being made for this user; those that come later find no user.
            let Some(user) = lock(tx, id).await? else { return Ok(()) };
            may(&user)?;
            let delete = "delete from users where id = $1 and not exists
                          (select from orders where user_id = $1 and state = 'open')";
            let deleted = sqlx::query(delete).bind(id).execute(tx).await?.rows_affected();
            if deleted == 1 { Ok(()) } else { Err(Error::OPEN_ORDERS) }
        })
        .await
    }

    /// The newest hundred orders of each of these users: one statement, however many users.
    pub async fn orders_of(&self, users: &[Uuid]) -> Result<HashMap<Uuid, Vec<Linked<Order>>>> {
        let select = sqlx::query_as::<_, Order>(
            r#"
            select orders.id, orders.user_id, item, quantity, state, version, created_at
            from unnest($1::uuid[]) as wanted (id)
            cross join lateral (
                select id, user_id, item, quantity, state, version, created_at
                from orders where user_id = wanted.id order by id desc limit 100
            ) as orders
            "#,
        );
        let orders = self.0.within(async |it| select.bind(users).fetch_all(it).await).await?;
        let mut of_user = HashMap::<_, Vec<_>>::new();
        for order in orders {
            of_user.entry(order.user_id).or_default().push(order.linked());
        }
        Ok(of_user)
    }

    /// A new order of this user, who must exist: the foreign key says so.
    pub async fn order(&self, user: Uuid, item: &str, quantity: i32) -> Result<Order> {
        let insert = sqlx::query_as(
            "insert into orders (id, user_id, item, quantity) values ($1, $2, $3, $4)
             returning id, user_id, item, quantity, state, version, created_at",
        );
        let insert = insert.bind(Uuid::now_v7()).bind(user).bind(item).bind(quantity);
        self.0.within(async |it| insert.fetch_one(it).await).await
    }

    // ANCHOR: move_order
    /// Moves the order on, if it stands where the move begins. Where it stands there already it stays, so the request may
    /// come twice. One statement: of a shipment and a cancellation at the same moment, the second finds no row.
    pub async fn move_order(&self, id: Uuid, (_, from, to): Move) -> Result<Order> {
        // 404 if there is none.
        self.find_order(id).await?;
        let update = sqlx::query_as(
            "update orders
             set state = $3, version = case state when $3 then version else nextval('versions') end
             where id = $1 and state in ($2, $3)
             returning id, user_id, item, quantity, state, version, created_at",
        );
        let update = update.bind(id).bind(from).bind(to);
        let order = self.0.within(async |it| update.fetch_optional(it).await).await?;
        order.ok_or(Error::NOT_ALLOWED)
    }
    // ANCHOR_END: move_order

    /// The order.
    pub async fn find_order(&self, id: Uuid) -> Result<Order> {
        let find = "select id, user_id, item, quantity, state, version, created_at
                    from orders where id = $1";
        let find = sqlx::query_as(find).bind(id);
        let order = self.0.within(async |it| find.fetch_optional(it).await).await?;
        order.ok_or(Error::NOT_FOUND)
    }
}

/// One user.
const FIND: &str =
    "select id, name, email, tags, version, created_at, updated_at from users where id = $1";

/// The user's row, locked until the transaction ends.
async fn lock(tx: &mut Tx, id: Uuid) -> sqlx::Result<Option<User>> {
    let select = "select id, name, email, tags, version, created_at, updated_at
                  from users where id = $1 for update";
    sqlx::query_as(select).bind(id).fetch_optional(tx).await
}

/// Nothing comes back if the address is taken.
const INSERT: &str = "insert into users (id, name, email, email_key, tags)
    values ($1, $2, $3, $4, $5)
    on conflict (email_key) do nothing
    returning id, name, email, tags, version, created_at, updated_at";

/// Nothing comes back if the user is like this already. Then the version stays, and with it each `ETag` that a client has kept.
const UPDATE: &str = "update users
    set name = $2, email = $3, email_key = $4, tags = $5,
        version = nextval('versions'), updated_at = now()
    where id = $1 and (name, email, tags) is distinct from ($2, $3, $5)
    returning id, name, email, tags, version, created_at, updated_at";

/// Sends one of the two statements above.
async fn write(tx: &mut Tx, sql: &'static str, id: Uuid, new: &NewUser) -> Result<Option<User>> {
    let NewUser { name, email, tags } = new;
    let write = sqlx::query_as(sql).bind(id).bind(name).bind(email.as_str()).bind(email.key());
    Ok(write.bind(tags).fetch_optional(tx).await?)
}
