//! What is kept? Every SQL statement of the service.
//!
//! Invariant: whoever decides about a user holds the lock of its row until the decision is written.

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::{PgConnection, Postgres, QueryBuilder, migrate::Migrator, types::Json};
use uuid::Uuid;

use crate::error::Error;
use crate::order::{Order, State};
use crate::page::PageQuery;
use crate::user::{NewUser, User};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database; leaves room for an answer within the request's five seconds.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };

/// A key that a client may use again, and what it came with.
pub type Claim = (String, Vec<u8>);

/// What a statement found, or why we refuse. A refusal is no failure: the connection is as good as before.
type Decided<T> = sqlx::Result<Result<T, Error>>;

/// The users and their orders.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url, LIMITS)? })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }

    // ANCHOR: create
    /// A new user; or, if the key has come before, what it got then.
    pub async fn create(&self, new: &NewUser, claim: Option<Claim>) -> Result<User, Error> {
        let create = async |tx: &mut PgConnection| -> Decided<User> {
            let Some((key, fingerprint)) = claim else {
                return Ok(insert(tx, Uuid::now_v7(), new).await?.ok_or(Error::EmailTaken));
            };
            // A lock that is not waited for: of two with one key at the same moment, the second is told so.
            let lock = "select pg_try_advisory_xact_lock(hashtextextended($1, 0))";
            if !sqlx::query_scalar(lock).bind(&key).fetch_one(&mut *tx).await? {
                return Ok(Err(Error::KeyInUse));
            }
            let find = "select fingerprint, answer from idempotency_keys where key = $1";
            let found = sqlx::query_as::<_, (Vec<u8>, Json<Option<User>>)>(find).bind(&key);
            if let Some((before, Json(user))) = found.fetch_optional(&mut *tx).await? {
                let same = before == fingerprint;
                return Ok(if same {
                    user.ok_or(Error::EmailTaken)
                } else {
                    Err(Error::KeyReused)
                });
            }
            let user = insert(tx, Uuid::now_v7(), new).await?;
            // In the transaction that makes the user: a crash leaves both or none.
            sqlx::query(
                "insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)",
            )
            .bind(&key)
            .bind(fingerprint)
            .bind(Json(&user))
            .execute(tx)
            .await?;
            Ok(user.ok_or(Error::EmailTaken))
        };
        self.database.transaction(create).await?
    }
    // ANCHOR_END: create

    /// The user.
    pub async fn find(&self, id: Uuid) -> Result<User, Error> {
        let find =
            async |it: &mut PgConnection| sqlx::query_as(FIND).bind(id).fetch_optional(it).await;
        self.database.within(find).await?.ok_or(Error::NotFound)
    }

    // ANCHOR: page
    /// The users of this page, and one more if there are more. The place is a range of an index, however deep it is:
    /// `offset` would read and throw away every row before it, and count wrongly when one of them goes.
    pub async fn page(&self, page: &PageQuery) -> Result<Vec<User>, Error> {
        let PageQuery { limit, sort, email, after, .. } = page;
        let (column, than, order) =
            if sort.descending { (sort.column, "<", "desc") } else { (sort.column, ">", "asc") };
        let mut query = QueryBuilder::<Postgres>::new(
            "select id, name, email, tags, version, created_at, updated_at from users where true",
        );
        if let Some(email) = email {
            query.push(" and email_key = ").push_bind(email);
        }
        if let Some(after) = after {
            let kind = if sort.column == "name" { "text" } else { "text::timestamptz" };
            query.push(format!(" and ({column}, id) {than} (")).push_bind(&after.key);
            query.push(format!("::{kind}, ")).push_bind(after.id).push(")");
        }
        query.push(format!(" order by {column} {order}, id {order} limit ")).push_bind(limit + 1);
        let users = async |it: &mut PgConnection| query.build_query_as().fetch_all(it).await;
        self.database.within(users).await
    }
    // ANCHOR_END: page

    // ANCHOR: replace
    /// Lets `decide` see the user, if there is one, and makes it what that returns; whether it was created. The row is
    /// locked in between: without the lock, two with the same `If-Match` could both find it right.
    pub async fn replace(
        &self,
        id: Uuid,
        decide: impl FnOnce(Option<&User>) -> Result<NewUser, Error>,
    ) -> Result<(User, bool), Error> {
        let replace = async |tx: &mut PgConnection| -> Decided<(User, bool)> {
            let user = lock(tx, id).await?;
            let new = match decide(user.as_ref()) {
                Ok(new) => new,
                Err(refusal) => return Ok(Err(refusal)),
            };
            Ok(match user {
                None => insert(tx, id, &new).await?.map(|it| (it, true)).ok_or(Error::EmailTaken),
                Some(user) if new.is(&user) => Ok((user, false)),
                Some(_) => Ok((update(tx, id, &new).await?, false)),
            })
        };
        self.database.transaction(replace).await?
    }
    // ANCHOR_END: replace

    /// Takes the user away, with the orders that are done, if `may` says so. One that has gone is gone.
    pub async fn delete(
        &self,
        id: Uuid,
        may: impl FnOnce(&User) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let delete = async |tx: &mut PgConnection| -> Decided<()> {
            // Waits for orders that are being made for this user; those that come later find no user.
            let Some(user) = lock(tx, id).await? else { return Ok(Ok(())) };
            let open = "select exists (select from orders where user_id = $1 and state = 'open')";
            if let Err(refusal) = may(&user) {
                return Ok(Err(refusal));
            }
            if sqlx::query_scalar(open).bind(id).fetch_one(&mut *tx).await? {
                return Ok(Err(Error::OpenOrders));
            }
            sqlx::query("delete from users where id = $1").bind(id).execute(tx).await?;
            Ok(Ok(()))
        };
        self.database.transaction(delete).await?
    }

    /// The newest hundred orders of each of these users, in one statement.
    pub async fn orders_of(&self, users: &[Uuid]) -> Result<Vec<Order>, Error> {
        let select = sqlx::query_as(
            r#"
            select orders.id, orders.user_id, item, quantity, state, version, created_at
            from unnest($1::uuid[]) as wanted (id)
            cross join lateral (
                select id, user_id, item, quantity, state, version, created_at
                from orders where user_id = wanted.id order by id desc limit 100
            ) as orders
            "#,
        );
        self.database.within(async |it| select.bind(users).fetch_all(it).await).await
    }

    /// A new order of this user, who must exist: the foreign key says so.
    pub async fn order(&self, user: Uuid, item: &str, quantity: i32) -> Result<Order, Error> {
        let insert = sqlx::query_as(
            "insert into orders (id, user_id, item, quantity) values ($1, $2, $3, $4)
             returning id, user_id, item, quantity, state, version, created_at",
        );
        let insert = insert.bind(Uuid::now_v7()).bind(user).bind(item).bind(quantity);
        self.database.within(async |it| insert.fetch_one(it).await).await
    }

    /// The order.
    pub async fn find_order(&self, id: Uuid) -> Result<Order, Error> {
        let find = sqlx::query_as(
            "select id, user_id, item, quantity, state, version, created_at from orders where id = $1",
        );
        let order = self.database.within(async |it| find.bind(id).fetch_optional(it).await).await?;
        order.ok_or(Error::NotFound)
    }

    // ANCHOR: move_order
    /// Moves the order on, if it still stands where the move begins. One statement: of a shipment and a cancellation at
    /// the same moment, one finds no row.
    pub async fn move_order(
        &self,
        id: Uuid,
        from: State,
        to: State,
    ) -> Result<Option<Order>, Error> {
        let update = sqlx::query_as(
            "update orders set state = $3, version = nextval('versions') where id = $1 and state = $2
             returning id, user_id, item, quantity, state, version, created_at",
        );
        let update = update.bind(id).bind(from).bind(to);
        self.database.within(async |it| update.fetch_optional(it).await).await
    }
    // ANCHOR_END: move_order
}

/// One user. The experiment `cost` sends this very statement to the database without HTTP.
pub const FIND: &str =
    "select id, name, email, tags, version, created_at, updated_at from users where id = $1";

/// The user's row, locked until the transaction ends.
async fn lock(tx: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<User>> {
    let select = "select id, name, email, tags, version, created_at, updated_at
                  from users where id = $1 for update";
    sqlx::query_as(select).bind(id).fetch_optional(tx).await
}

/// Nothing if the address is taken.
async fn insert(tx: &mut PgConnection, id: Uuid, new: &NewUser) -> sqlx::Result<Option<User>> {
    let insert = sqlx::query_as(
        "insert into users (id, name, email, email_key, tags) values ($1, $2, $3, $4, $5)
         on conflict (email_key) do nothing
         returning id, name, email, tags, version, created_at, updated_at",
    );
    let insert = insert.bind(id).bind(&new.name).bind(new.email.as_str()).bind(new.email.key());
    insert.bind(&new.tags).fetch_optional(tx).await
}

async fn update(tx: &mut PgConnection, id: Uuid, new: &NewUser) -> sqlx::Result<User> {
    let update = sqlx::query_as(
        "update users
         set name = $2, email = $3, email_key = $4, tags = $5,
             version = nextval('versions'), updated_at = now()
         where id = $1
         returning id, name, email, tags, version, created_at, updated_at",
    );
    let update = update.bind(id).bind(&new.name).bind(new.email.as_str()).bind(new.email.key());
    update.bind(&new.tags).fetch_one(tx).await
}
