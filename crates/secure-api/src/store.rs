//! What is kept? Every SQL statement of the service.
//!
//! Invariant: a statement for a customer runs as a role that sees this customer's rows only, and its `where` names the
//! customer too. Either lock is enough. What a client wrote is bound, and never a part of the text.

use std::time::Duration;

use edge::database::{Database, Limits};
use serde::Serialize;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::{PgConnection as Tx, Postgres, QueryBuilder, migrate::Migrator, query, query_as};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::invoice::{Change, Invoice, InvoiceInput};
use crate::login::Count;
use crate::page::PageQuery;
use crate::token::{By, Caller, Role};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database; leaves room for an answer within the request's eight seconds.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };

/// Everything that is kept.
#[derive(Clone, Debug)]
pub struct Store(Database<Error>);

/// Some invoices, and the id after which the next page begins.
pub type Page = (Vec<Invoice>, Option<Uuid>);

/// An entry of the audit.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Entry {
    /// Without gaps.
    pub seq: i64,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// Who; nobody, if a login failed that is nobody's.
    pub actor: Uuid,
    /// What.
    pub action: String,
    /// To what: an id, and never a text of the client's.
    pub object: String,
    /// By which the log knows it.
    pub request_id: Uuid,
    /// Of this entry and the hash before it.
    pub hash: String,
    /// Whether the hash is right, and no entry is missing before this one.
    pub intact: bool,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        Ok(Self(Database::new(url, LIMITS)?))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    // ANCHOR: tenant
    /// Does the work for this customer, as one transaction: as a role that sees no other rows and may do little to these,
    /// whatever the statements forget.
    pub async fn tenant<T>(
        &self,
        who: Caller,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T>,
    ) -> Result<T> {
        // Both settings end with the transaction. The next customer on this connection begins with neither.
        const AS_TENANT: &str = "select set_config('app.customer', $1, true),
            set_config('role', 'pg_database_owner', true)";
        self.0
            .transaction_or_refusal(async |tx| {
                query(AS_TENANT).bind(who.customer.to_string()).execute(&mut *tx).await?;
                work(tx).await
            })
            .await?
    }
    // ANCHOR_END: tenant

    /// A new invoice.
    pub async fn create(&self, by: By, new: &InvoiceInput) -> Result<Invoice> {
        let insert = "insert into invoices (id, customer_id, title, note, amount_cents, corrects)
                      values ($2, $1, $3, $4, $5, $6)
                      returning id, title, note, amount_cents, corrects, paid, created_at";
        let id = Uuid::now_v7();
        let insert = query_as(insert).bind(by.who.customer).bind(id).bind(&new.title);
        let insert = insert.bind(&new.note).bind(new.amount_cents).bind(new.corrects);
        self.write(by, "invoice created", id, insert).await
    }

    // ANCHOR: change
    /// Changes the texts of an invoice.
    pub async fn change(&self, by: By, id: Uuid, new: &Change) -> Result<Invoice> {
        let update = "update invoices set title = coalesce($3, title), note = coalesce($4, note)
                      where customer_id = $1 and id = $2
                      returning id, title, note, amount_cents, corrects, paid, created_at";
        let update = query_as(update).bind(by.who.customer).bind(id);
        self.write(by, "invoice changed", id, update.bind(&new.title).bind(&new.note)).await
    }

    /// Runs a statement that returns the row it has written, and writes down who did it: both or neither. Another
    /// customer's row is not found.
    async fn write<T: Row>(
        &self,
        by: By,
        action: &'static str,
        id: Uuid,
        statement: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<T> {
        self.tenant(by.who, async |tx| {
            let row = statement.fetch_optional(&mut *tx).await?.ok_or(Error::NOT_FOUND)?;
            append(tx, [by.who.user, by.request_id], action, &id.to_string()).await?;
            Ok(row)
        })
        .await
    }
    // ANCHOR_END: change

    /// Deletes an invoice, with its attachments.
    pub async fn delete(&self, by: By, id: Uuid) -> Result<()> {
        let delete = "delete from invoices where customer_id = $1 and id = $2 returning id";
        let delete = query_as::<_, (Uuid,)>(delete).bind(by.who.customer).bind(id);
        self.write(by, "invoice deleted", id, delete).await.map(drop)
    }

    /// Keeps a file with an invoice of this customer: the foreign key says so.
    pub async fn attach(&self, by: By, invoice: Uuid, file: &Attachment) -> Result<Uuid> {
        let insert = "insert into attachments
                          (id, customer_id, invoice_id, name, media_type, content)
                      values ($2, $1, $3, $4, $5, $6) returning id";
        let id = Uuid::now_v7();
        let insert = query_as(insert).bind(by.who.customer).bind(id).bind(invoice);
        let insert = insert.bind(&file.name).bind(file.media_type).bind(&file.content);
        self.write::<(Uuid,)>(by, "attachment added", id, insert).await.map(|row| row.0)
    }

    /// A new webhook.
    pub async fn add_webhook(&self, by: By, url: &str) -> Result<Uuid> {
        let insert = "insert into webhooks (id, customer_id, url) values ($2, $1, $3) returning id";
        let id = Uuid::now_v7();
        let insert = query_as(insert).bind(by.who.customer).bind(id).bind(url);
        self.write::<(Uuid,)>(by, "webhook added", id, insert).await.map(|row| row.0)
    }

    // ANCHOR: find
    /// An invoice of this customer. Somebody else's is not found.
    pub async fn find(&self, who: Caller, id: Uuid) -> Result<Invoice> {
        let find = "select id, title, note, amount_cents, corrects, paid, created_at
                    from invoices where customer_id = $1 and id = $2";
        self.read(who, find, id).await
    }

    async fn read<T: Row>(&self, who: Caller, find: &'static str, id: Uuid) -> Result<T> {
        self.tenant(who, async |tx| {
            let found = query_as(find).bind(who.customer).bind(id).fetch_optional(tx).await?;
            found.ok_or(Error::NOT_FOUND)
        })
        .await
    }
    // ANCHOR_END: find

    /// The name, the type and the bytes of an attachment of this customer.
    pub async fn attachment(&self, who: Caller, id: Uuid) -> Result<(String, String, Vec<u8>)> {
        const FIND: &str = "select name, media_type, content
                            from attachments where customer_id = $1 and id = $2";
        self.read(who, FIND, id).await
    }

    /// The address of a webhook of this customer.
    pub async fn webhook(&self, who: Caller, id: Uuid) -> Result<(String,)> {
        self.read(who, "select url from webhooks where customer_id = $1 and id = $2", id).await
    }

    // ANCHOR: list
    /// The invoices of a page.
    pub async fn list(&self, who: Caller, page: &PageQuery) -> Result<Page> {
        const SEARCH: &str = " and words @@ websearch_to_tsquery('simple', ";
        let (column, limit) = (page.column, usize::from(page.limit));
        let (than, order) = if page.descending { ("<", "desc") } else { (">", "asc") };
        let mut select = QueryBuilder::<Postgres>::new(
            "select id, title, note, amount_cents, corrects, paid, created_at
             from invoices where customer_id = ",
        );
        select.push_bind(who.customer);
        if let Some(search) = &page.search {
            // It takes any text: what is no query for it finds nothing.
            select.push(SEARCH).push_bind(search).push(")");
        }
        if let Some(after) = page.after {
            select.push(format!(" and ({column}, id) {than} (select {column}, id from invoices"));
            select.push(" where customer_id = ").push_bind(who.customer);
            select.push(" and id = ").push_bind(after).push(")");
        }
        select.push(format!(" order by {column} {order}, id {order} limit {}", limit + 1));
        let mut invoices: Vec<Invoice> =
            self.tenant(who, async |tx| Ok(select.build_query_as().fetch_all(tx).await?)).await?;
        let next = invoices.get(limit).map(|_| invoices[limit - 1].id);
        invoices.truncate(limit);
        Ok((invoices, next))
    }
    // ANCHOR_END: list

    /// The names of all customers, with their ids.
    pub async fn customers(&self, by: By) -> Result<Vec<(Uuid, String)>> {
        let select = query_as("select id, name from customers order by name limit 1000");
        let read = async |tx: &mut Tx| {
            append(tx, [by.who.user, by.request_id], "customers read", "all").await?;
            select.fetch_all(tx).await
        };
        self.0.transaction(read).await
    }

    // ANCHOR: attempt
    /// Counts a login before its password is looked at: of a thousand at once, none has failed yet.
    pub async fn attempt(&self, counts: &[Count]) -> Result<()> {
        let count = r#"
            insert into attempts (window_start, key, count)
            values (date_bin('15 minutes', now(), 'epoch'), $1, 1)
            on conflict (window_start, key) do update set count = attempts.count + 1
            returning count, extract(epoch from window_start + interval '15 minutes' - now())::float8
        "#;
        let attempt = async |tx: &mut Tx| {
            let old = query("delete from attempts where window_start < now() - interval '1 hour'");
            old.execute(&mut *tx).await?;
            let mut wait = None;
            for (key, most) in counts {
                let row: (i32, f64) = query_as(count).bind(key).fetch_one(&mut *tx).await?;
                wait = (row.0 > *most).then_some(row.1);
                // What one count refuses does not use up the next: else one stranger keeps an owner out.
                if wait.is_some() {
                    break;
                }
            }
            Ok(wait)
        };
        let Some(seconds) = self.0.transaction(attempt).await? else { return Ok(()) };
        Err(Error::NotNow(429, "too many logins", Duration::from_secs_f64(seconds.max(1.0))))
    }
    // ANCHOR_END: attempt

    /// Forgets the attempts on an account, after a login that succeeded. The client's count stays: otherwise somebody with
    /// one account could guess at all others for ever.
    pub async fn forget(&self, [_, both, account]: &[Count; 3]) -> Result<()> {
        let forget = query("delete from attempts where key in ($1, $2)");
        self.0.execute(forget.bind(&both.0).bind(&account.0)).await.map(drop)
    }

    /// Whose address this is, and the hash of the password.
    pub async fn account(&self, email: &str) -> Result<Option<(Caller, String)>> {
        let find = "select id, customer_id, role, password_hash from users where email = $1";
        let find = query_as::<_, (Uuid, Uuid, Role, String)>(find).bind(email);
        let found = self.0.within(async |it| find.fetch_optional(it).await).await?;
        Ok(found.map(|(user, customer, role, hash)| (Caller { user, customer, role }, hash)))
    }

    /// Makes an account, or gives it another password.
    pub async fn seed(&self, email: &str, customer: &str, role: Role, hash: &str) -> Result<()> {
        let seed = r#"
            with customer as (
                insert into customers (id, name) values ($1, $2)
                on conflict (name) do update set name = excluded.name
                returning id
            )
            insert into users (id, customer_id, email, role, password_hash)
            select $3, id, $4, $5, $6 from customer
            on conflict (email) do update set password_hash = excluded.password_hash
        "#;
        let seed = query(seed).bind(Uuid::now_v7()).bind(customer).bind(Uuid::now_v7());
        self.0.execute(seed.bind(email).bind(role).bind(hash)).await.map(drop)
    }

    /// Writes down a login.
    pub async fn audit_login(&self, user: Uuid, action: &'static str, request: Uuid) -> Result<()> {
        self.0.transaction(async |tx| append(tx, [user, request], action, "login").await).await
    }

    // ANCHOR: audit_page
    /// A thousand entries after this one, each compared with the hash before it.
    pub async fn audit_page(&self, after: i64) -> Result<Vec<Entry>> {
        let select = r#"
            select seq, at, actor, action, object, request_id, encode(hash, 'hex') as hash,
                seq = lag(seq, 1, 0::bigint) over entries + 1
                and hash = audit_hash(lag(hash, 1, '\x'::bytea) over entries,
                    seq, at, actor, action, object, request_id) as intact
            from (
                select seq, at, actor, action, object, request_id, hash
                from audit where seq >= $1 order by seq limit 1001
            ) as some_entries
            window entries as (order by seq)
            order by seq
        "#;
        let select = query_as(select).bind(after);
        let mut entries: Vec<Entry> = self.0.within(async |it| select.fetch_all(it).await).await?;
        // It is here for its hash.
        entries.retain(|entry| entry.seq != after);
        Ok(entries)
    }
    // ANCHOR_END: audit_page
}

/// What a statement for a customer returns.
trait Row: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin {}
impl<T: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin> Row for T {}

/// Writes down which user did this to that, in which request.
async fn append(tx: &mut Tx, by: [Uuid; 2], action: &str, object: &str) -> sqlx::Result<()> {
    let append = query("select audit_append($1, $2, $3, $4)").bind(by[0]);
    append.bind(action).bind(object).bind(by[1]).execute(tx).await.map(drop)
}
