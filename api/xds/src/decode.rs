//! Envoy v3 messages to spec, whoever wrote them.
//!
//! What guards something and cannot be honoured is an error, and so is a condition we cannot test, since dropping it would
//! take other requests than it says; what only shapes traffic is a note, and the rest is used.
//! Never here: trust in the sender: every field is checked as if our own encoder did not exist. Called by the proxy.

#![expect(deprecated, reason = "older senders know these fields only")]

mod access_log;
mod authorization;
mod cluster;
mod endpoint;
mod fault;
mod http;
mod listener;
mod matcher;
mod read;
mod route;
mod routes;
mod tls;

use std::sync::Arc;

use api::{
    note::{Notes, ObjectRef},
    spec::Resource,
};
use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
        route::v3::RouteConfiguration, route::v3::VirtualHost,
    },
    extensions::transport_sockets::tls::v3::Secret,
};
use prost::Message;

/// Why a message is not a resource we can serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type we do not speak.
    #[error("{0} is not a type of resource we know")]
    Type(String),
    /// Not the bytes of such a message.
    #[error("{type_url}: not a message of this type: {reason}")]
    Bytes {
        /// Type URL it was sent under.
        type_url: String,
        /// What the parser said.
        reason: String,
    },
    /// A field is wrong in itself, or the resource is of a sort we do not serve.
    #[error("{resource}: {path}: {reason}")]
    Invalid {
        /// Name of the resource.
        resource: String,
        /// Path of the field in Envoy's words.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field asks for protection that we do not give; serving without it would be unsafe.
    #[error("{resource}: {path}: {reason}, and serving without it would be unsafe")]
    Unsupported {
        /// Name of the resource.
        resource: String,
        /// Path of the field in Envoy's words.
        path: String,
        /// What we do not do.
        reason: String,
    },
}

/// What is being read: names the resource in errors, gathers notes.
struct In<'n> {
    object: ObjectRef,
    notes: &'n mut Notes,
}

impl In<'_> {
    fn invalid(&self, path: impl Into<String>, reason: impl Into<String>) -> DecodeError {
        DecodeError::Invalid { resource: self.object.name.clone(), path: path.into(), reason: reason.into() }
    }

    fn guards(&self, path: impl Into<String>, reason: impl Into<String>) -> DecodeError {
        DecodeError::Unsupported { resource: self.object.name.clone(), path: path.into(), reason: reason.into() }
    }

    /// Refuses what guards something, where it is asked for.
    fn refuse(&self, asked: bool, path: &str, field: &str, reason: &str) -> Result<(), DecodeError> {
        if asked { Err(self.guards(format!("{path}{field}"), reason)) } else { Ok(()) }
    }

    /// Notes a traffic feature that is not honoured, where it is asked for.
    fn ignore(&mut self, asked: bool, path: &str, field: &str) {
        if asked {
            self.notes.warn(&self.object, format!("{path}{field}"), "not honoured");
        }
    }

    fn note(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.notes.warn(&self.object, path, text);
    }
}

/// Reads one resource. Traffic features that we do not honour are told in `notes` (object kind = Envoy's name of the
/// message, object name = the resource's), and the rest is served.
///
/// # Errors
/// Not such a message, a wrong field, or one that guards something and is not honoured.
pub fn decode(type_url: &str, bytes: &[u8], notes: &mut Notes) -> Result<Resource, DecodeError> {
    fn parse<M: Message + Default>(type_url: &str, bytes: &[u8]) -> Result<M, DecodeError> {
        M::decode(bytes)
            .map_err(|error| DecodeError::Bytes { type_url: type_url.to_owned(), reason: error.to_string() })
    }
    let named = |kind: &str, name: &str| ObjectRef::new(kind, "", name);
    Ok(match type_url {
        crate::TYPE_URL_CLUSTER => {
            let message: Cluster = parse(type_url, bytes)?;
            let mut input = In { object: named("Cluster", &message.name), notes };
            Resource::Cluster(Arc::new(cluster::cluster(&mut input, &message)?))
        }
        crate::TYPE_URL_ENDPOINTS => {
            let message: ClusterLoadAssignment = parse(type_url, bytes)?;
            let mut input = In { object: named("ClusterLoadAssignment", &message.cluster_name), notes };
            Resource::Endpoints(Arc::new(endpoint::endpoints(&mut input, &message)?))
        }
        crate::TYPE_URL_LISTENER => {
            let message: Listener = parse(type_url, bytes)?;
            let mut input = In { object: named("Listener", &message.name), notes };
            Resource::Listener(Arc::new(listener::listener(&mut input, &message)?))
        }
        crate::TYPE_URL_ROUTES => {
            let message: RouteConfiguration = parse(type_url, bytes)?;
            let mut input = In { object: named("RouteConfiguration", &message.name), notes };
            Resource::Routes(Arc::new(routes::table(&mut input, "", &message)?))
        }
        crate::TYPE_URL_VIRTUAL_HOST => {
            let message: VirtualHost = parse(type_url, bytes)?;
            let mut input = In { object: named("VirtualHost", &message.name), notes };
            Resource::VirtualHost(Arc::new(routes::virtual_host(&mut input, "", &message, &routes::Table::default())?))
        }
        crate::TYPE_URL_SECRET => {
            let message: Secret = parse(type_url, bytes)?;
            let input = In { object: named("Secret", &message.name), notes };
            Resource::Secret(Arc::new(tls::secret(&input, message)?))
        }
        other => return Err(DecodeError::Type(other.to_owned())),
    })
}

#[cfg(test)]
mod tests;
