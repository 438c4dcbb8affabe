//! Which questions does the book answer? These eighteen, in a good order for learning.

use lab::Answer;

/// How hard a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For every candidate.
    Beginner,
    /// For candidates who have built a service.
    Intermediate,
    /// For candidates who have run a service.
    Advanced,
}

impl Level {
    /// Every level, the easiest first.
    pub const ALL: [Self; 3] = [Self::Beginner, Self::Intermediate, Self::Advanced];

    /// Its name, as a heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Beginner => "Beginner",
            Self::Intermediate => "Intermediate",
            Self::Advanced => "Advanced",
        }
    }
}

/// One of the eighteen.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Its level.
    pub level: Level,
    /// What it is about, as the contents show it.
    pub title: &'static str,
    /// The crate that answers it, or will answer it later.
    pub answer: &'static str,
    /// What a reader sees there.
    pub shows: &'static str,
}

const fn question(
    level: Level,
    title: &'static str,
    answer: &'static str,
    shows: &'static str,
) -> Question {
    Question { level, title, answer, shows }
}

use Level::{Advanced, Beginner, Intermediate};

/// All of them.
pub const QUESTIONS: [Question; 18] = [
    question(
        Beginner,
        "HTTP and HTTPS",
        "https-server",
        "what a listener on the wire reads, and what the first request still gives away",
    ),
    question(
        Beginner,
        "RESTful APIs",
        "rest-api",
        "what safe and idempotent buy when a request is sent twice",
    ),
    question(
        Beginner,
        "Database indexes",
        "database-index",
        "when the planner ignores an index, and what it costs each write",
    ),
    question(
        Beginner,
        "SQL and NoSQL",
        "sql-vs-nosql",
        "that the access pattern decides, and not the label",
    ),
    question(
        Beginner,
        "Middleware",
        "middleware",
        "that order decides, and what happens on a panic and a time-out",
    ),
    question(
        Beginner,
        "JWT",
        "jwt-auth",
        "a stolen token, a revoked one, a rotated key, a confused algorithm",
    ),
    question(
        Intermediate,
        "Concurrent requests",
        "concurrent-requests",
        "pools, queues and load shedding when a thousand come at once",
    ),
    question(
        Intermediate,
        "Transactions and ACID",
        "transaction-demo",
        "which anomaly each isolation level lets through, and a deadlock on demand",
    ),
    question(
        Intermediate,
        "Caching with Redis",
        "cache-aside",
        "stampedes, stale fills and a cache that goes away",
    ),
    question(
        Intermediate,
        "URL shortener",
        "url-shortener",
        "collisions, races, expiry, shards, a crash and a database that is away",
    ),
    question(
        Intermediate,
        "Microservices",
        "microservices",
        "what a call over the network costs, and what a partial failure does",
    ),
    question(
        Intermediate,
        "Securing an API",
        "secure-api",
        "the attacks of OWASP's list, tried on a running service",
    ),
    question(
        Advanced,
        "Rate limiting",
        "rate-limiter",
        "five algorithms at the edge of a window, in one process and in four",
    ),
    question(
        Advanced,
        "A scalable notification system",
        "notification-worker",
        "no accepted job lost, none sent twice, a slow reader that harms nobody",
    ),
    question(
        Advanced,
        "Distributed transactions without 2PC",
        "saga-orchestrator",
        "a saga killed at every step, and what its compensations leave",
    ),
    question(
        Advanced,
        "A slow SQL query",
        "slow-query",
        "each of the usual remedies, measured before and after",
    ),
    question(
        Advanced,
        "The CAP theorem",
        "cap-theorem",
        "a partition, and the choice that each operation makes during it",
    ),
    question(
        Advanced,
        "Containers",
        "containerized-app",
        "signals, draining and health checks of a process that is number one",
    ),
];

/// The answers to other questions, such as a reader's own.
pub fn others(answers: &[Answer]) -> Vec<&Answer> {
    let is_other = |answer: &&Answer| QUESTIONS.iter().all(|known| known.answer != answer.name);
    answers.iter().filter(is_other).collect()
}
