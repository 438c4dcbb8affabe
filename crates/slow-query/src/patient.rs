//! Which queries are slow, and what do people propose? A catalogue, so that nobody sends us SQL.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::finding::Kind;
use crate::treatment::Effect;

/// A query, and what people say about it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patient {
    /// In the URL.
    pub name: String,
    /// What its users say.
    pub complaint: String,
    /// The statement.
    pub sql: String,
    /// The columns that its caller looks at; all of them if there are none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
    /// The settings of its server that are a part of the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// Whether the order of the rows is a part of the answer.
    #[serde(default)]
    pub ordered: bool,
    /// What is wrong with its plan; nothing if nothing is.
    pub cause: Option<Kind>,
    /// What people propose.
    pub remedies: Vec<Remedy>,
}

/// A proposal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    /// In the URL.
    pub name: String,
    /// As people say it.
    pub says: String,
    /// What it does to this patient, as we have seen it.
    pub effect: Effect,
    /// It changes the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statements: Option<Statements>,
    /// It is another query, perhaps of what its statements have made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// It changes settings, for this query only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
}

/// What changes the database, and what takes it back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statements {
    /// All in one transaction.
    pub apply: String,
    /// Nothing, if there is no way back.
    pub undo: Option<String>,
}

/// All of them. A test reads them, so a mistake in the file does not get far.
pub static PATIENTS: LazyLock<Vec<Patient>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("patients.json")).expect("our own patients")
});

impl Patient {
    /// The patient of this name.
    pub fn find(name: &str) -> Result<&'static Self> {
        PATIENTS.iter().find(|patient| patient.name == name).ok_or(Error::NOT_FOUND)
    }

    /// The proposal of this name.
    pub fn remedy(&self, name: &str) -> Result<&Remedy> {
        self.remedies.iter().find(|remedy| remedy.name == name).ok_or(Error::NOT_FOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_does_something_and_every_patient_who_is_ill_has_one_that_helps() {
        for patient in PATIENTS.iter() {
            assert!(Patient::find(&patient.name).is_ok());
            for remedy in &patient.remedies {
                let is_sql = remedy.statements.is_some() || remedy.rewrite.is_some();
                // Settings alone: otherwise nobody would know which of the two has helped.
                assert!(is_sql != remedy.settings.is_some(), "{} {}", patient.name, remedy.name);
            }
            let helped = patient.remedies.iter().any(|remedy| remedy.effect == Effect::Helps);
            assert!(helped || patient.cause.is_none(), "{}", patient.name);
        }
        let ill = PATIENTS.iter().filter(|patient| patient.cause.is_some()).count();
        assert_eq!((ill, PATIENTS.len() - ill), (20, 10));
    }
}
