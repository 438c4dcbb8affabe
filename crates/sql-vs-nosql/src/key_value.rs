//! The shop in Redis: values under keys, and every index is kept by hand.
//!
//! Invariant: what belongs together changes in one script, which Redis runs without a break. A script writes only if what
//! the program has decided on is still there. In Redis Cluster the keys of a script would have to be in one slot.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisResult, Script, pipe};
use serde_json::{Value, json};

use crate::entity::{Fields, Kind, MOST};
use crate::error::{Error, Result};
use crate::order::{Order, Request};
use crate::query::{By, Read, Revenue, Search, Session};

/// The shop in Redis.
#[derive(Clone, Debug)]
pub struct KeyValue {
    connection: ConnectionManager,
    prefix: String,
}

// ANCHOR: put_script
/// Puts the body ARGV[2] in the place of ARGV[1], and the id ARGV[3] into the indexes: by price ARGV[4], if it has one,
/// out of the first ARGV[5] sets from KEYS[3] on, and into the other sets.
const PUT: &str = r#"
    if (redis.call('hget', KEYS[1], 'body') or '') ~= ARGV[1] then
        return false
    end
    redis.call('hset', KEYS[1], 'body', ARGV[2])
    redis.call('hsetnx', KEYS[1], 'amount', 0)
    if ARGV[4] ~= '' then
        redis.call('zadd', KEYS[2], ARGV[4], ARGV[3])
    end
    for n = 3, #KEYS do
        redis.call(n < 3 + ARGV[5] and 'srem' or 'sadd', KEYS[n], ARGV[3])
    end
    return redis.call('hget', KEYS[1], 'amount')
"#;
// ANCHOR_END: put_script

// ANCHOR: place_script
/// Keeps the order ARGV[1] under KEYS[1], and its key in the lists KEYS[2] and KEYS[3]. From KEYS[4] on: the customer and the
/// products, each with its body as the program has read it, and with what the order takes from its amount.
const PLACE: &str = r#"
    for n = 4, #KEYS do
        local is = redis.call('hmget', KEYS[n], 'body', 'amount')
        if is[1] ~= ARGV[2 * n - 6] or tonumber(is[2]) < tonumber(ARGV[2 * n - 5]) then
            return 0
        end
    end
    for n = 4, #KEYS do
        redis.call('hincrby', KEYS[n], 'amount', '-' .. ARGV[2 * n - 5])
    end
    redis.call('set', KEYS[1], ARGV[1])
    redis.call('lpush', KEYS[2], KEYS[1])
    redis.call('lpush', KEYS[3], KEYS[1])
    return 1
"#;
// ANCHOR_END: place_script

const ADD: &str = r#"
    local amount = redis.call('hget', KEYS[1], 'amount')
    if amount and amount + ARGV[1] <= tonumber(ARGV[2]) then
        return redis.call('hincrby', KEYS[1], 'amount', ARGV[1])
    end
    return amount and -1
"#;

const DELETE: &str =
    "return redis.call('exists', KEYS[2]) == 0 and redis.call('del', KEYS[1]) >= 0";

/// The hundred cheapest of the ids that are in all of KEYS: the index by price, and sets, in which each counts 1. So however
/// many there are, Redis sends a hundred.
const FIND: &str = r#"
    return #KEYS == 1 and redis.call('zrange', KEYS[1], 0, 99)
        or {unpack(redis.call('zinter', #KEYS, unpack(KEYS)), 1, 100)}
"#;

/// An entity as it is kept: the text of its fields, and its amount.
type Kept = (Option<String>, Option<i64>);

impl KeyValue {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> RedisResult<Self> {
        let patience = Some(Duration::from_secs(2));
        let config = ConnectionManagerConfig::new().set_response_timeout(patience);
        let config = config.set_connection_timeout(patience).set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { connection, prefix: prefix.to_owned() })
    }

    fn key(&self, name: &str, id: &str) -> String {
        format!("{}{name}:{id}", self.prefix)
    }

    async fn kept(&self, kind: Kind, id: &str) -> Result<Kept> {
        Ok(self.all(&[self.key(kind.name(), id)]).await?.pop().unwrap_or_default())
    }

    /// What is under these keys, in one round trip.
    async fn all(&self, keys: &[String]) -> Result<Vec<Kept>> {
        let mut read = pipe();
        for key in keys {
            read.hmget(key, &["body", "amount"]);
        }
        let mut redis = self.connection.clone();
        // An empty pipeline is refused by some servers.
        if keys.is_empty() { Ok(Vec::new()) } else { Ok(read.query_async(&mut redis).await?) }
    }

    /// See the port. There is no replica to read from.
    pub async fn get(&self, kind: Kind, id: &str, _: Option<&str>) -> Result<Read> {
        Ok((whole(kind, self.kept(kind, id).await?)?.ok_or(Error::NOT_FOUND)?, "primary"))
    }

    // ANCHOR: replace
    /// Reads, decides, and writes if nobody else has written meanwhile; otherwise once more. No lock is held.
    pub async fn replace(
        &self,
        kind: Kind,
        id: &str,
        decide: impl Fn(Option<Fields>) -> Result<Fields>,
    ) -> Result<(Fields, bool)> {
        loop {
            let (body, amount) = self.kept(kind, id).await?;
            let old = whole(kind, (body.clone(), amount))?;
            let (gone, is_new) = (self.sets(kind, old.as_ref()), old.is_none());
            let mut new = decide(old)?;
            let put = Script::new(PUT);
            let mut put = put.prepare_invoke();
            put.key(self.key(kind.name(), id)).key(self.key("index", "price"));
            put.key(&gone).key(self.sets(kind, Some(&new)));
            put.arg(body.unwrap_or_default()).arg(serde_json::to_string(&new)?).arg(id);
            put.arg(new.get("price_cents").map(Value::to_string).unwrap_or_default());
            let amount: Option<i64> =
                put.arg(gone.len()).invoke_async(&mut self.connection.clone()).await?;
            if let Some(amount) = amount {
                new.insert(kind.amount().to_owned(), json!(amount));
                return Ok((new, is_new));
            }
        }
    }
    // ANCHOR_END: replace

    // ANCHOR: sets
    /// The sets that a product is in: one for each attribute that is text, with its value. The name is JSON, since
    /// `colour=red` could also be the attribute `colour=` with the value `red`.
    fn sets(&self, kind: Kind, fields: Option<&Fields>) -> Vec<String> {
        let fields = fields.into_iter().flatten().filter(|_| kind == Kind::Product);
        let texts = fields.filter(|(name, value)| value.is_string() && !kind.is_planned(name));
        texts.map(|(name, value)| self.key("index", &json!([name, value]).to_string())).collect()
    }
    // ANCHOR_END: sets

    /// See the port.
    pub async fn delete(&self, customer: &str) -> Result<()> {
        let delete = Script::new(DELETE);
        let mut delete = delete.key(self.key("customer", customer));
        delete.key(self.key("orders", customer));
        let deleted: bool = delete.invoke_async(&mut self.connection.clone()).await?;
        if deleted { Ok(()) } else { Err(Error::HAS_ORDERS) }
    }

    /// Without the script, a deposit would make a customer that is not there.
    pub async fn add(&self, kind: Kind, id: &str, many: i64) -> Result<i64> {
        let add = Script::new(ADD);
        let mut add = add.key(self.key(kind.name(), id));
        let amount = add.arg(many).arg(MOST).invoke_async(&mut self.connection.clone()).await?;
        match amount {
            None => Err(Error::NOT_FOUND),
            Some(-1) => Err(Error::TOO_MUCH),
            Some(amount) => Ok(amount),
        }
    }

    /// The sets are intersected with all products by their price, which gives the order: the dear ones are the last.
    pub async fn search(&self, search: &Search) -> Result<Vec<(String, Fields)>> {
        let wanted = search.attributes.iter().map(|(name, value)| json!([name, value]));
        let wanted = wanted.map(|it| self.key("index", &it.to_string()));
        let find = Script::new(FIND);
        let mut find = find.key(self.key("index", "price"));
        find.key(wanted.collect::<Vec<_>>());
        let ids: Vec<String> = find.invoke_async(&mut self.connection.clone()).await?;
        let keys: Vec<_> = ids.iter().map(|id| self.key("product", id)).collect();
        let kept = self.all(&keys).await?;
        let mut products = Vec::new();
        for (id, kept) in ids.into_iter().zip(kept) {
            let product = whole(Kind::Product, kept)?;
            let cheap = product.filter(|it| it["price_cents"].as_i64() <= Some(search.max_price));
            products.extend(cheap.map(|fields| (id, fields)));
        }
        Ok(products)
    }

    // ANCHOR: place
    /// Reads, decides, and lets the script write if it all still holds; otherwise once more.
    pub async fn place(&self, request: &Request) -> Result<Order> {
        loop {
            let customer = self.key("customer", &request.customer);
            let products = request.lines.keys().map(|id| self.key("product", id));
            let keys: Vec<_> = [customer].into_iter().chain(products).collect();
            let kept = self.all(&keys).await?;
            let customer = whole(Kind::Customer, kept[0].clone())?;
            let mut products = BTreeMap::new();
            for (id, kept) in request.lines.keys().zip(&kept[1..]) {
                let product = whole(Kind::Product, kept.clone())?;
                products.extend(product.map(|fields| (id.clone(), fields)));
            }
            let order = request.priced(customer.as_ref(), &products)?;
            let place = Script::new(PLACE);
            let mut place = place.key(self.key("order", &order.id));
            place.key(self.key("orders", &order.customer)).key(self.key("index", "orders"));
            place.key(&keys).arg(serde_json::to_string(&order)?);
            let taken = [order.total_cents].into_iter().chain(request.lines.values().copied());
            for ((body, _), taken) in kept.iter().zip(taken) {
                place.arg(body).arg(taken);
            }
            if place.invoke_async(&mut self.connection.clone()).await? {
                return Ok(order);
            }
        }
    }
    // ANCHOR_END: place

    /// The list of their keys, and then all of them at once.
    pub async fn orders_of(&self, customer: &str) -> Result<Vec<Order>> {
        self.page(&self.key("orders", customer), 0, 100).await
    }

    // ANCHOR: revenue
    /// A question that came later: nothing was prepared for it, so all orders are read, a thousand at a time, and their
    /// customers. Orders that come meanwhile may be counted or not, so this is no picture of one moment.
    pub async fn revenue(&self, by: By) -> Result<Vec<Revenue>> {
        if by.snapshot {
            return Err(Error::NO_SNAPSHOT);
        }
        let all = self.key("index", "orders");
        let (mut sums, mut countries) = (BTreeMap::<_, (i64, i64)>::new(), HashMap::new());
        // From the oldest on, since new ones are put in front: so no place moves while we read.
        let mut page = self.page(&all, -1_000, 1_000).await?;
        let mut read = 0;
        while !page.is_empty() {
            read += 1_000;
            for order in page {
                if by.country && !countries.contains_key(&order.customer) {
                    let (customer, _) = self.get(Kind::Customer, &order.customer, None).await?;
                    let country = customer["country"].as_str().unwrap_or_default().to_owned();
                    countries.insert(order.customer.clone(), country);
                }
                let country = countries.get(&order.customer).cloned();
                let (year, month) = (order.ordered_at.year(), u8::from(order.ordered_at.month()));
                let month = by.month.then(|| format!("{year:04}-{month:02}"));
                let (orders, cents) = sums.entry((country, month)).or_default();
                (*orders, *cents) = (*orders + 1, *cents + order.total_cents);
            }
            page = self.page(&all, -1_000 - read, 1_000).await?;
        }
        let row = |((country, month), (orders, cents))| Revenue { country, month, orders, cents };
        Ok(sums.into_iter().map(row).collect())
    }
    // ANCHOR_END: revenue

    /// Orders from this place of a list on. A place below zero counts from the end.
    async fn page(&self, list: &str, from: isize, many: isize) -> Result<Vec<Order>> {
        let mut redis = self.connection.clone();
        // LRANGE includes its last place.
        let keys: Vec<String> = redis.lrange(list, from, from + many - 1).await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let orders: Vec<String> = redis.mget(keys).await?;
        orders.iter().map(|it| Ok(serde_json::from_str(it)?)).collect()
    }

    /// Redis takes away what has expired.
    pub async fn put_session(&self, id: &str, session: &Session) -> Result<()> {
        let seconds = session.ttl_seconds.unsigned_abs();
        let key = self.key("session", id);
        Ok(self.connection.clone().set_ex(key, &session.customer, seconds).await?)
    }

    /// See the port.
    pub async fn session(&self, id: &str) -> Result<Session> {
        let key = self.key("session", id);
        let (customer, left): (Option<String>, i64) =
            pipe().get(&key).ttl(&key).query_async(&mut self.connection.clone()).await?;
        let customer = customer.filter(|_| left >= 0).ok_or(Error::NOT_FOUND)?;
        Ok(Session { customer, ttl_seconds: left })
    }

    /// See the port.
    #[allow(clippy::unused_async, reason = "the others ask a server")]
    pub async fn position(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// See the port.
    pub async fn ping(&self) -> Result<()> {
        Ok(redis::cmd("PING").exec_async(&mut self.connection.clone()).await?)
    }
}

/// The fields with their amount, if they are there.
fn whole(kind: Kind, (body, amount): Kept) -> Result<Option<Fields>> {
    let Some(body) = body else { return Ok(None) };
    let mut fields: Fields = serde_json::from_str(&body)?;
    fields.insert(kind.amount().to_owned(), json!(amount));
    Ok(Some(fields))
}
