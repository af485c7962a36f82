//! Names and small numbers that are checked once and then cannot be wrong.
//!
//! A host, a SPIFFE identity, a percentage: each has one way in, which refuses what is not one.
//! Never here: look-ups, or meaning that depends on a mesh. Used everywhere.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be; the writer of the text is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS name, wildcard DNS name or IP address.
    #[error("{0:?} is not a host: expected a DNS name, optionally with a leading \"*.\", or an IP address")]
    Host(String),
    /// Not `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    #[error("{0:?} is not a mesh identity: expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    SpiffeId(String),
    /// Outside 0..=100.
    #[error("{0} is not a percentage: expected 0 to 100")]
    Percent(String),
    /// Outside 1..=65535.
    #[error("{0} is not a port: expected 1 to 65535")]
    Port(i64),
}

fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A host as users write it in routes, rules and entries: `reviews`, `reviews.shop.svc.cluster.local`, `*.example.com`,
/// `*` or an IP address. Lower case, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

impl Host {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for many names: `*` or `*.suffix`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every name that `other` stands for is also named by `self`.
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            None => self.0 == other.0,
            Some(suffix) => {
                let rest = other.0.strip_prefix('*').unwrap_or(&other.0);
                rest.ends_with(suffix) && (other.is_wildcard() || rest.len() > suffix.len())
            }
        }
    }

    /// The full name of a short host as Istio reads it: `reviews` written in namespace `shop` is
    /// `reviews.shop.svc.DOMAIN`. Names with a dot, wildcards and addresses stay as they are.
    pub fn qualify(&self, namespace: &str, domain: &str) -> Self {
        if self.0.contains('.') || self.is_wildcard() || self.0.parse::<std::net::IpAddr>().is_ok() {
            self.clone()
        } else {
            Self(format!("{}.{namespace}.svc.{domain}", self.0))
        }
    }
}

impl TryFrom<String> for Host {
    type Error = NameError;
    fn try_from(raw: String) -> Result<Self, NameError> {
        raw.parse()
    }
}

impl FromStr for Host {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<Self, NameError> {
        let text = raw.trim_end_matches('.').to_ascii_lowercase();
        let name = match text.strip_prefix('*') {
            Some("") => return Ok(Self(text)),
            Some(rest) => rest.strip_prefix('.').unwrap_or(rest),
            None => text.as_str(),
        };
        let good = text.len() <= 253 && (name.parse::<std::net::IpAddr>().is_ok() || name.split('.').all(is_dns_label));
        if good { Ok(Self(text)) } else { Err(NameError::Host(raw.to_owned())) }
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT` (SPIFFE-ID, section 2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// Makes an identity from its three parts.
    ///
    /// # Errors
    /// A part that is empty or holds a character no Kubernetes name or trust domain may hold.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, NameError> {
        let part = |text: &str| text.split('.').all(is_dns_label);
        if part(trust_domain) && part(namespace) && part(service_account) {
            Ok(Self {
                trust_domain: trust_domain.to_owned(),
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
            })
        } else {
            Err(NameError::SpiffeId(format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")))
        }
    }

    /// The trust domain, `cluster.local` unless the mesh says otherwise.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The namespace of the service account.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The identity without `spiffe://`, as policies and metrics write principals.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<Self, NameError> {
        let bad = || NameError::SpiffeId(raw.to_owned());
        let rest = raw.strip_prefix("spiffe://").ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [domain, "ns", namespace, "sa", account] => Self::new(domain, namespace, account).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(raw: String) -> Result<Self, NameError> {
        raw.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

/// A share of events in millionths, made from a percentage of 0 to 100 (Envoy's finest denominator).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Percent(u32);

impl Percent {
    /// Every event.
    pub const ALL: Self = Self(1_000_000);
    /// No event.
    pub const NONE: Self = Self(0);

    /// The share in millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// A share given in millionths.
    ///
    /// # Errors
    /// More than a million.
    pub fn from_millionths(raw: u32) -> Result<Self, NameError> {
        if raw <= 1_000_000 { Ok(Self(raw)) } else { Err(NameError::Percent(format!("{raw}/1000000"))) }
    }

    /// Whether an event with this roll (any number, evenly spread) belongs to the share.
    pub fn hits(self, roll: u64) -> bool {
        roll % 1_000_000 < u64::from(self.0)
    }
}

impl TryFrom<f64> for Percent {
    type Error = NameError;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
    fn try_from(raw: f64) -> Result<Self, NameError> {
        if (0.0..=100.0).contains(&raw) {
            Ok(Self((raw * 10_000.0).round() as u32))
        } else {
            Err(NameError::Percent(raw.to_string()))
        }
    }
}

/// A port that traffic can be sent to: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Port(u16);

impl Port {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Port {
    type Error = NameError;
    fn try_from(raw: i64) -> Result<Self, NameError> {
        u16::try_from(raw).ok().filter(|port| *port != 0).map(Self).ok_or(NameError::Port(raw))
    }
}

impl From<Port> for i64 {
    fn from(port: Port) -> Self {
        Self::from(port.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn a_short_host_belongs_to_the_namespace_it_is_written_in() {
        assert_eq!(host("reviews").qualify("shop", "cluster.local"), host("reviews.shop.svc.cluster.local"));
        assert_eq!(host("a.b").qualify("shop", "cluster.local"), host("a.b"));
        assert_eq!(host("*").qualify("shop", "cluster.local"), host("*"));
    }

    #[test]
    fn a_wildcard_covers_names_below_it_only() {
        assert!(host("*.com").covers(&host("a.com")));
        assert!(host("*.com").covers(&host("*.b.com")));
        assert!(host("*").covers(&host("a.com")));
        assert!(!host("*.a.com").covers(&host("a.com")));
        assert!(!host("a.com").covers(&host("*.com")));
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for bad in ["", "a..b", "-a", "a_b/c", "a b", "http://a"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_reads_back() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        for bad in ["spiffe://a/ns/b/sa/", "spiffe://a/ns/b", "https://a/ns/b/sa/c", "spiffe://a/ns/b/sa/c/d"] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_above_100_is_refused() {
        assert!(Percent::try_from(100.1).is_err());
        assert_eq!(Percent::try_from(0.01).unwrap().millionths(), 100);
    }
}
