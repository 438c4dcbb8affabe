//! The 22 queries of TPC-H with the parameters that the specification has for its validation
//! (<https://www.tpc.org/tpch/>), and what might make them faster.

/// One query.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Its number and its name in the specification.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
    /// Whether it orders its rows completely. Otherwise two rows with equal keys may come in either order.
    pub ordered: bool,
}

const fn query(name: &'static str, sql: &'static str, ordered: bool) -> Query {
    Query { name, sql, ordered }
}

/// All 22, by their numbers.
pub const QUERIES: [Query; 22] = [
    query("1 pricing summary", include_str!("q01.sql"), true),
    query("2 minimum cost supplier", include_str!("q02.sql"), true),
    query("3 shipping priority", include_str!("q03.sql"), false),
    query("4 order priority", include_str!("q04.sql"), true),
    query("5 local supplier volume", include_str!("q05.sql"), false),
    query("6 forecasting revenue", include_str!("q06.sql"), true),
    query("7 volume shipping", include_str!("q07.sql"), true),
    query("8 national market share", include_str!("q08.sql"), true),
    query("9 product type profit", include_str!("q09.sql"), true),
    query("10 returned items", include_str!("q10.sql"), false),
    query("11 important stock", include_str!("q11.sql"), false),
    query("12 shipping modes", include_str!("q12.sql"), true),
    query("13 customer distribution", include_str!("q13.sql"), true),
    query("14 promotion effect", include_str!("q14.sql"), true),
    query("15 top supplier", include_str!("q15.sql"), true),
    query("16 parts and suppliers", include_str!("q16.sql"), true),
    query("17 small quantity orders", include_str!("q17.sql"), true),
    query("18 large volume customer", include_str!("q18.sql"), false),
    query("19 discounted revenue", include_str!("q19.sql"), true),
    query("20 potential promotion", include_str!("q20.sql"), true),
    query("21 suppliers who kept orders waiting", include_str!("q21.sql"), true),
    query("22 global sales opportunity", include_str!("q22.sql"), true),
];

/// Something that people would try.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub how: How,
}

/// The kinds of changes.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// An index on these columns.
    Index(&'static str),
    /// A setting, with its value.
    Setting(&'static str),
    /// Another text for the query with this number.
    Rewrite(usize, &'static str),
}

const fn change(name: &'static str, how: How) -> Change {
    Change { name, how }
}

/// What is tried.
pub const CHANGES: [Change; 10] = [
    change(
        "index on the part and supplier of a line item",
        How::Index("lineitem (l_partkey, l_suppkey)"),
    ),
    change("index on the supplier of a line item", How::Index("lineitem (l_suppkey)")),
    change("index on the day of shipping", How::Index("lineitem (l_shipdate)")),
    change("index on the customer of an order", How::Index("orders (o_custkey)")),
    change("index on the day of an order", How::Index("orders (o_orderdate)")),
    change("index on the supplier of an offer", How::Index("partsupp (ps_suppkey)")),
    change("work_mem of 64 MB", How::Setting("work_mem = '64MB'")),
    change("random_page_cost of 1.1", How::Setting("random_page_cost = 1.1")),
    change("query 17 with a window", How::Rewrite(17, include_str!("q17_once.sql"))),
    change("query 20 with its sums at once", How::Rewrite(20, include_str!("q20_once.sql"))),
];

/// A well-known rewrite that returns other rows.
pub const WRONG: Change =
    change("query 4 with a join in place of EXISTS", How::Rewrite(4, include_str!("q04_join.sql")));
