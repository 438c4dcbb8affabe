//! Who says where a service is? In a cluster a registry or DNS does. Here an operator, or an experiment.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::put};
use edge::{Json, path::Segment};

use crate::error::{Error, Result};
use crate::module::Module;
use crate::peer::Peer;

type Peers = BTreeMap<Module, Arc<Peer>>;

/// `PUT /admin/services/{name}` with a list of addresses.
pub fn router(peers: Peers) -> Router {
    Router::new().route("/admin/services/{name}", put(moved)).with_state(peers)
}

async fn moved(
    State(peers): State<Peers>,
    name: Segment,
    Json(urls): Json<Vec<String>>,
) -> Result<Json<Vec<String>>> {
    let peer = peers.iter().find(|(module, _)| module.name() == name.0);
    let (_, peer) = peer.ok_or(Error::NOT_FOUND)?;
    peer.move_to(urls);
    Ok(Json(peer.urls()))
}
