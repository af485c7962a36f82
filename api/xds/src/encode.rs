//! Spec to Envoy v3 messages.
//!
//! One resource in, the bytes of its message out, with a version that is equal for equal resources on every replica.
//! Written as Istio writes: ADS everywhere, the workload's own certificates from the agent beside it, origins in metadata.
//! Never here: choosing what a proxy is told. Called by pilot through [`encode`].

#![expect(deprecated, reason = "older readers know these fields only")]

mod authorization;
mod cluster;
mod http;
mod listener;
mod routes;
mod tls;
mod wire;

use std::hash::{DefaultHasher, Hasher};

use api::spec::Resource;
use bytes::Bytes;
use prost::Message;

use crate::{Dialect, type_url};

/// Raised whenever the same resource is written differently, so that proxies are sent the new form.
const REVISION: u8 = 1;

/// A resource, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Type URL of the message.
    pub type_url: &'static str,
    /// Name it is subscribed to under.
    pub name: String,
    /// The message. Its maps are in no order: compare versions, not bytes.
    pub value: Bytes,
    /// Equal for equal resources in one dialect, on every replica.
    pub version: u64,
}

/// Why a resource cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The wire has no such value, or the reader would refuse it.
    #[error("{resource}: {path}: {reason}")]
    Field {
        /// Name of the resource.
        resource: String,
        /// Path of the field, in our words.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is being written, and for whom.
#[derive(Debug, Clone, Copy)]
struct Out<'r> {
    resource: &'r str,
    dialect: Dialect,
}

impl Out<'_> {
    fn bad<T>(self, path: impl Into<String>, reason: impl Into<String>) -> Result<T, EncodeError> {
        Err(EncodeError::Field { resource: self.resource.to_owned(), path: path.into(), reason: reason.into() })
    }
}

/// Writes a resource for a reader.
///
/// # Errors
/// The resource holds what the message cannot say.
pub fn encode(resource: &Resource, dialect: Dialect) -> Result<Encoded, EncodeError> {
    let out = Out { resource: resource.name(), dialect };
    let value = match resource {
        Resource::Cluster(cluster) => cluster::cluster(out, cluster)?.encode_to_vec(),
        Resource::Endpoints(endpoints) => {
            cluster::endpoints(out, &endpoints.cluster, &endpoints.localities, false)?.encode_to_vec()
        }
        Resource::Listener(listener) => listener::listener(out, listener)?.encode_to_vec(),
        Resource::Routes(table) => routes::table(out, table)?.encode_to_vec(),
        Resource::VirtualHost(host) => routes::virtual_host(out, host)?.encode_to_vec(),
        Resource::Secret(secret) => tls::secret(secret).encode_to_vec(),
    };
    Ok(Encoded {
        type_url: type_url(resource.kind()),
        name: resource.name().to_owned(),
        value: value.into(),
        version: version(out, resource)?,
    })
}

/// Feeds what is written to a hasher.
struct Hashing(DefaultHasher);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hash of a resource's content, its dialect and the way it is written.
fn version(out: Out<'_>, resource: &Resource) -> Result<u64, EncodeError> {
    let mut hashing = Hashing(DefaultHasher::new());
    hashing.0.write_u8(REVISION);
    hashing.0.write_u8(match out.dialect {
        Dialect::Ours => 0,
        Dialect::Envoy => 1,
        Dialect::Grpc => 2,
    });
    match serde_json::to_writer(&mut hashing, resource) {
        Ok(()) => Ok(hashing.0.finish()),
        Err(error) => out.bad("", error.to_string()),
    }
}

#[cfg(test)]
mod tests;
