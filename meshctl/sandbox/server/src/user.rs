//! Who asks: the authenticated caller of a request.
//!
//! Made by the rim from a client certificate or token, or by programs in this process that ask as themselves.
//! Never here: what the caller may do (see `auth`).
//! Called by everything that hands a request to the server.

use std::collections::BTreeMap;

/// The authenticated caller of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The user's name, e.g. `system:serviceaccount:default:reviews`.
    pub name: String,
    /// An opaque id; empty for certificates.
    pub uid: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
    /// What else the credential says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user with these groups, and `system:authenticated` as every known caller has it.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == "system:authenticated") {
            groups.push("system:authenticated".to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// The administrator: may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &["system:masters"])
    }

    /// A part of the control plane, e.g. `deployment-controller`: may do everything, under its own name.
    pub fn system(part: &str) -> Self {
        Self::new(&format!("system:{part}"), &["system:masters"])
    }

    /// A caller without a credential.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }
}
