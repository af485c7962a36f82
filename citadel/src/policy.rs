//! Who may have which certificate, and for how long.
//!
//! The names follow from who asks, never from what is asked: a service account has its own SPIFFE identity, and those of
//! the control programs have their fixed DNS names besides. A request for anything else is refused.
//! Never here: cryptography, clocks, I/O. Asked by `serve`, and by citadel for its own certificate.

use std::time::Duration;

use api::name::SpiffeId;

/// The control programs' service accounts and the Services they answer as.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("istio-citadel", &["istio-citadel"]),
    ("istio-pilot", &["istiod", "istio-pilot"]),
    ("istio-sidecar-injector", &["istio-sidecar-injector"]),
];

/// Service account of citadel itself.
pub(crate) const CITADEL: &str = "istio-citadel";

/// Why a certificate is not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller comes from elsewhere.
    #[error("{found} is not of trust domain {expected}")]
    TrustDomain {
        /// Who it is.
        found: SpiffeId,
        /// The trust domain of this mesh.
        expected: String,
    },
    /// The service account's name makes no identity.
    #[error("service account {namespace}/{name} cannot be written as an identity")]
    Unnameable {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The request asks for somebody else's name.
    #[error("the request asks for {asked:?}; the caller may only have {}", may.join(", "))]
    OtherName {
        /// The name asked for.
        asked: String,
        /// The names the caller may have.
        may: Vec<String>,
    },
    /// The caller wants to be taken for another.
    #[error("impersonation of {0:?} is not allowed to anyone")]
    Impersonation(String),
    /// A lifetime beyond the limit.
    #[error("the request asks for a lifetime of {asked:?}; the longest is {longest:?}")]
    TooLong {
        /// What was asked for.
        asked: Duration,
        /// The limit.
        longest: Duration,
    },
}

/// Who asks, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// By a token.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// By its current certificate.
    Certificate(SpiffeId),
}

/// What is asked for besides a signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Names in the request.
    pub(crate) names: Vec<String>,
    /// Lifetime; none: the default.
    pub(crate) lifetime: Option<Duration>,
    /// Whom the caller wants to be taken for.
    pub(crate) impersonates: Option<String>,
}

/// A certificate that may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The identity.
    pub(crate) identity: SpiffeId,
    /// DNS names, for control programs.
    pub(crate) dns_names: Vec<String>,
    /// How long it lives.
    pub(crate) lifetime: Duration,
}

/// The rules of this mesh.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Trust domain of every identity.
    pub(crate) trust_domain: String,
    /// Namespace of the control programs.
    pub(crate) namespace: String,
    /// Domain of cluster names.
    pub(crate) cluster_domain: String,
    /// Lifetime where none is asked for.
    pub(crate) default_lifetime: Duration,
    /// Longest lifetime.
    pub(crate) longest_lifetime: Duration,
}

impl Policy {
    /// The DNS names of a service account; none, unless it is a control program's.
    fn dns_names(&self, identity: &SpiffeId) -> Vec<String> {
        let services = PROGRAMS
            .iter()
            .find(|(account, _)| identity.namespace() == self.namespace && identity.service_account() == *account);
        let names = |service: &&str| {
            let short = format!("{service}.{}", self.namespace);
            [format!("{short}.svc"), format!("{short}.svc.{}", self.cluster_domain), short]
        };
        services.into_iter().flat_map(|(_, services)| services.iter()).flat_map(names).collect()
    }

    /// Decides on a request.
    pub(crate) fn grant(&self, caller: &Caller, wish: &Wish) -> Result<Grant, Refusal> {
        if let Some(other) = &wish.impersonates {
            return Err(Refusal::Impersonation(other.clone()));
        }
        let identity = match caller {
            Caller::Certificate(found) if found.trust_domain() != self.trust_domain => {
                return Err(Refusal::TrustDomain { found: found.clone(), expected: self.trust_domain.clone() });
            }
            Caller::Certificate(found) => found.clone(),
            Caller::ServiceAccount { namespace, name } => SpiffeId::new(&self.trust_domain, namespace, name)
                .map_err(|_| Refusal::Unnameable { namespace: namespace.clone(), name: name.clone() })?,
        };
        let dns_names = self.dns_names(&identity);
        let may: Vec<String> = std::iter::once(identity.to_string()).chain(dns_names.iter().cloned()).collect();
        if let Some(other) = wish.names.iter().find(|name| !may.contains(name)) {
            return Err(Refusal::OtherName { asked: other.clone(), may });
        }
        let lifetime = wish.lifetime.unwrap_or(self.default_lifetime);
        if lifetime > self.longest_lifetime {
            return Err(Refusal::TooLong { asked: lifetime, longest: self.longest_lifetime });
        }
        Ok(Grant { identity, dns_names, lifetime })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn policy() -> Policy {
        Policy {
            trust_domain: "cluster.local".into(),
            namespace: "istio-system".into(),
            cluster_domain: "cluster.local".into(),
            default_lifetime: Duration::from_secs(86_400),
            longest_lifetime: Duration::from_secs(90 * 86_400),
        }
    }

    fn account(namespace: &str, name: &str) -> Caller {
        Caller::ServiceAccount { namespace: namespace.into(), name: name.into() }
    }

    fn names(names: &[&str]) -> Wish {
        Wish { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Wish::default() }
    }

    #[test]
    fn a_service_account_has_its_own_identity_and_nothing_else() {
        let reviews = account("shop", "reviews");
        let grant = policy().grant(&reviews, &names(&["spiffe://cluster.local/ns/shop/sa/reviews"])).unwrap();
        assert_eq!(grant.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert!(grant.dns_names.is_empty());
        assert_eq!(grant.lifetime, Duration::from_secs(86_400));
        for other in [
            "spiffe://cluster.local/ns/shop/sa/ratings",
            "spiffe://other/ns/shop/sa/reviews",
            "istiod.istio-system.svc",
            "10.0.0.1",
        ] {
            let refusal = policy().grant(&reviews, &names(&[other])).unwrap_err();
            assert!(
                refusal.to_string().contains("may only have spiffe://cluster.local/ns/shop/sa/reviews"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_control_programs_account_has_its_names_in_its_own_namespace_only() {
        let grant =
            policy().grant(&account("istio-system", "istio-pilot"), &names(&["istiod.istio-system.svc"])).unwrap();
        assert!(grant.dns_names.contains(&"istiod.istio-system.svc.cluster.local".to_owned()));
        assert!(!grant.dns_names.iter().any(|name| name.contains("citadel")));
        let wish = names(&["istiod.istio-system.svc"]);
        assert!(policy().grant(&account("shop", "istio-pilot"), &wish).is_err());
        assert!(policy().grant(&account("istio-system", "istio-citadel"), &wish).is_err());
    }

    #[test]
    fn a_certificate_of_another_trust_domain_gets_none() {
        let caller = |id: &str| Caller::Certificate(id.parse().unwrap());
        assert!(policy().grant(&caller("spiffe://cluster.local/ns/a/sa/b"), &Wish::default()).is_ok());
        let refusal = policy().grant(&caller("spiffe://elsewhere/ns/a/sa/b"), &Wish::default()).unwrap_err();
        assert_eq!(refusal.to_string(), "spiffe://elsewhere/ns/a/sa/b is not of trust domain cluster.local");
    }

    #[test]
    fn nobody_is_taken_for_another_and_no_certificate_lives_too_long() {
        let wish = Wish { impersonates: Some("spiffe://cluster.local/ns/a/sa/admin".into()), ..Wish::default() };
        assert!(matches!(policy().grant(&account("a", "b"), &wish), Err(Refusal::Impersonation(_))));
        let wish = Wish { lifetime: Some(Duration::from_secs(10 * 365 * 86_400)), ..Wish::default() };
        assert!(matches!(policy().grant(&account("a", "b"), &wish), Err(Refusal::TooLong { .. })));
        assert!(matches!(policy().grant(&account("a", "b/c"), &Wish::default()), Err(Refusal::Unnameable { .. })));
    }
}
