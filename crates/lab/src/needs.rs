//! What does an experiment need from the machine, and does this machine have it? We find out before the experiment
//! runs, and cheaply enough for a page that lists all experiments.

use std::fmt;

use crate::stack::{self, Service};

/// Something that an experiment cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A service that it shares with others. It has a database, or a prefix for keys or queues, of its own there. The
    /// needs of the answer apply to all of its experiments and need not be declared again.
    Shared(Service),
    /// A service of its own, which it may kill. A server that the reader gives cannot be used for this.
    Own(Service),
    /// A group of servers that work as one.
    Group(Group),
    /// A program that does something for it: [`Service::ContainerEngine`].
    Tool(Service),
    /// The rights of root.
    Root,
    /// A feature that only Linux has.
    Linux,
}

/// A group of servers that work as one, all of the experiment's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A primary with a synchronous and an asynchronous standby.
    PostgresStandbys,
    /// A primary with replicas, and the Sentinels that watch it.
    RedisSentinel,
    /// Three primaries with a replica each.
    RedisCluster,
    /// Three nodes with quorum queues.
    RabbitMqCluster,
    /// Three nodes.
    EtcdCluster,
}

impl Group {
    /// What its members are.
    pub const fn service(self) -> Service {
        match self {
            Self::PostgresStandbys => Service::Postgres,
            Self::RedisSentinel | Self::RedisCluster => Service::Redis,
            Self::RabbitMqCluster => Service::RabbitMq,
            Self::EtcdCluster => Service::Etcd,
        }
    }
}

impl Need {
    /// Why this machine does not have it. `None` if it does, or if it can be installed or started when it is needed.
    pub fn obstacle(self) -> Option<String> {
        match self {
            Self::Shared(service) | Self::Tool(service) => stack::why_none(service),
            Self::Own(service) => stack::why_none_of_its_own(service),
            Self::Group(group) => stack::why_not_installed(group.service()),
            Self::Root if rustix::process::geteuid().is_root() => None,
            Self::Root => Some("you are not root".to_owned()),
            Self::Linux if cfg!(target_os = "linux") => None,
            Self::Linux => Some("this system is not Linux".to_owned()),
        }
        .map(|why| format!("it needs {self}, and {why}"))
    }

    /// Installs it if it is missing. Shared servers install themselves when they are asked for.
    pub(crate) async fn bring(self) -> anyhow::Result<()> {
        match self {
            Self::Own(service) => stack::bring_own(service).await,
            Self::Group(group) => stack::bring(group.service()).await,
            // The code that asks for these installs them.
            Self::Shared(_) | Self::Tool(_) | Self::Root | Self::Linux => Ok(()),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(service) | Self::Tool(service) => write!(f, "{service}"),
            Self::Own(service) => write!(f, "{service} of its own"),
            Self::Group(Group::PostgresStandbys) => f.write_str("PostgreSQL with two standbys"),
            Self::Group(Group::RedisSentinel) => f.write_str("Redis with replicas and Sentinels"),
            Self::Group(Group::RedisCluster) => f.write_str("Redis Cluster"),
            Self::Group(Group::RabbitMqCluster) => f.write_str("RabbitMQ with three nodes"),
            Self::Group(Group::EtcdCluster) => f.write_str("etcd with three nodes"),
            Self::Root => f.write_str("root"),
            Self::Linux => f.write_str("Linux"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_names_what_is_needed_and_why_it_is_not_there() {
        let root = rustix::process::geteuid().is_root();
        assert_eq!(Need::Root.obstacle().is_none(), root);
        assert_eq!(Need::Linux.obstacle().is_none(), cfg!(target_os = "linux"));
        let all = Service::EVERY.map(Need::Own);
        for obstacle in all.iter().filter_map(|need| Some((need, need.obstacle()?))) {
            assert!(obstacle.1.contains(&obstacle.0.to_string()), "{obstacle:?}");
        }
    }
}
