//! May a client say what it has read? Only what a node of this cluster has shown it. So a context is signed.
//!
//! With a context that a client made up, it could replace writes that it never saw. Worse, a counter from the future would
//! silently swallow the writes that are still to come.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::record::Key;
use crate::version::{Dot, Vector};

/// The key that the nodes of a cluster share.
#[derive(Clone, Debug)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// Any text will do.
    pub fn new(cluster_key: &str) -> Self {
        Self(Hmac::new_from_slice(cluster_key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    fn mac(&self, key: &Key, vector: &str) -> Hmac<Sha256> {
        self.0.clone().chain_update(vector).chain_update("\n").chain_update(key.as_str())
    }

    // ANCHOR: context
    /// The vector as a client carries it, from a read to the next write: `0=3,2=1.SIGNATURE`.
    pub fn sign(&self, key: &Key, vector: &Vector) -> String {
        let dots: Vec<_> =
            vector.0.iter().map(|(node, counter)| format!("{node}={counter}")).collect();
        let vector = dots.join(",");
        let mac = self.mac(key, &vector).finalize().into_bytes();
        format!("{vector}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// The vector of a context that a node of this cluster has given out for this key.
    pub fn verify(&self, key: &Key, context: &str) -> Option<Vector> {
        let (text, mac) = context.rsplit_once('.')?;
        self.mac(key, text).verify_slice(&URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        let mut vector = Vector::default();
        for dot in text.split(',').filter(|dot| !dot.is_empty()) {
            let (node, counter) = dot.split_once('=')?;
            vector.add(Dot { node: node.parse().ok()?, counter: counter.parse().ok()? });
        }
        Some(vector)
    }
    // ANCHOR_END: context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn only_what_this_cluster_gave_out_for_this_key_is_a_context() {
        let (ours, theirs) = (Signer::new("ours"), Signer::new("theirs"));
        let vector = Vector([(0, 3), (2, u64::MAX)].into());
        let context = ours.sign(&key("tea"), &vector);
        assert_eq!(ours.verify(&key("tea"), &context), Some(vector));
        assert_eq!(theirs.verify(&key("tea"), &context), None);
        assert_eq!(ours.verify(&key("coffee"), &context), None);
        for forged in [
            context.replacen('3', "4", 1),
            context.replacen("0=", "1=", 1),
            context.replacen(',', ",,", 1),
            context[..context.len() - 1].to_owned(),
            context.split_once('.').unwrap().0.to_owned(),
            String::new(),
            ".".to_owned(),
            "0=1.".to_owned(),
        ] {
            assert_eq!(ours.verify(&key("tea"), &forged), None, "{forged:?}");
        }
    }

    #[test]
    fn an_empty_context_is_one_too() {
        let signer = Signer::new("ours");
        let context = signer.sign(&key("tea"), &Vector::default());
        assert_eq!(signer.verify(&key("tea"), &context), Some(Vector::default()));
    }
}
