//! TLS on both sides, and secrets.
//!
//! The workload's certificate and the mesh's roots come from the agent beside the proxy, other secrets over ADS. A gRPC
//! client finds its certificates through the provider of its bootstrap.
//! Never here: keys that the control plane should not have. Called by `encode`, `listener` and `cluster`.

use api::spec::{CertificateRef, ClientTls, PRIVATE_ALPN, RootsRef, Secret, SecretValue, ServerTls, TlsVersion};
use envoy_types::pb::envoy::{
    config::core::v3::{TransportSocket, transport_socket::ConfigType},
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            self as pb, CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
            DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
            certificate_validation_context::{SystemRootCerts, TrustChainVerification},
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            secret,
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    r#type::matcher::v3::string_matcher::MatchPattern,
};

use super::{EncodeError, Out, wire};
use crate::{Dialect, names};

pub(super) fn secret(secret: &Secret) -> pb::Secret {
    let value = match &secret.value {
        SecretValue::Certificate { chain, key } => secret::Type::TlsCertificate(pb::TlsCertificate {
            certificate_chain: Some(wire::inline_bytes(chain.clone())),
            private_key: Some(wire::inline_bytes(key.clone())),
            ..pb::TlsCertificate::default()
        }),
        SecretValue::Roots(roots) => secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(wire::inline_bytes(roots.clone())),
            ..CertificateValidationContext::default()
        }),
    };
    pb::Secret { name: secret.name.clone(), r#type: Some(value) }
}

/// The protocols a reader may know.
pub(super) fn protocols(out: Out<'_>, list: &[String]) -> Vec<String> {
    let known = |name: &&String| out.dialect == Dialect::Ours || *name != PRIVATE_ALPN;
    list.iter().filter(known).cloned().collect()
}

fn sds(name: &str) -> SdsSecretConfig {
    let local = [names::SECRET_WORKLOAD, names::SECRET_ROOTS].contains(&name);
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(if local { wire::agent() } else { wire::ads() }) }
}

/// The certificate and protocols of either side.
fn common(
    out: Out<'_>,
    path: &str,
    certificate: Option<&CertificateRef>,
    alpn: &[String],
) -> Result<CommonTlsContext, EncodeError> {
    let mut common = CommonTlsContext { alpn_protocols: protocols(out, alpn), ..CommonTlsContext::default() };
    match certificate {
        None => {}
        Some(CertificateRef::Workload) if out.dialect == Dialect::Grpc => {
            common.tls_certificate_provider_instance = Some(CertificateProviderPluginInstance {
                instance_name: names::GRPC_PROVIDER.to_owned(),
                certificate_name: names::SECRET_WORKLOAD.to_owned(),
            });
        }
        Some(CertificateRef::Secret(_) | CertificateRef::Files { .. }) if out.dialect == Dialect::Grpc => {
            return out.bad(format!("{path}.certificate"), "a gRPC client has no certificate but the workload's");
        }
        Some(CertificateRef::Workload) => common.tls_certificate_sds_secret_configs.push(sds(names::SECRET_WORKLOAD)),
        Some(CertificateRef::Secret(name)) => {
            if [names::SECRET_WORKLOAD, names::SECRET_ROOTS].contains(&name.as_str()) {
                return out.bad(format!("{path}.certificate"), format!("{name:?} names what the agent serves"));
            }
            common.tls_certificate_sds_secret_configs.push(sds(name));
        }
        Some(CertificateRef::Files { chain, key }) => common.tls_certificates.push(pb::TlsCertificate {
            certificate_chain: Some(wire::file(chain)),
            private_key: Some(wire::file(key)),
            ..pb::TlsCertificate::default()
        }),
    }
    Ok(common)
}

/// Roots and what else the peer must prove.
fn validation(out: Out<'_>, roots: &RootsRef, mut checks: CertificateValidationContext) -> ValidationContextType {
    let name = match roots {
        RootsRef::Mesh if out.dialect == Dialect::Grpc => {
            checks.ca_certificate_provider_instance = Some(CertificateProviderPluginInstance {
                instance_name: names::GRPC_PROVIDER.to_owned(),
                certificate_name: names::SECRET_ROOTS.to_owned(),
            });
            return ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(checks),
                ..CombinedCertificateValidationContext::default()
            });
        }
        RootsRef::Mesh => names::SECRET_ROOTS,
        RootsRef::Secret(name) => name,
        RootsRef::File(path) => {
            checks.trusted_ca = Some(wire::file(path));
            return ValidationContextType::ValidationContext(checks);
        }
    };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(checks),
        validation_context_sds_secret_config: Some(sds(name)),
        ..CombinedCertificateValidationContext::default()
    })
}

pub(super) fn socket<M: prost::Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(wire::any(config))) }
}

pub(super) fn raw() -> TransportSocket {
    socket(names::SOCKET_RAW, &RawBuffer {})
}

fn of_mesh(certificate: Option<&CertificateRef>, roots: Option<&RootsRef>) -> bool {
    certificate == Some(&CertificateRef::Workload) && roots == Some(&RootsRef::Mesh)
}

pub(super) fn server(out: Out<'_>, path: &str, tls: &ServerTls) -> Result<TransportSocket, EncodeError> {
    let ServerTls { certificate, client_roots, require_client_certificate, trust_domains, alpn, mesh, min_version } =
        tls;
    if *mesh != of_mesh(Some(certificate), client_roots.as_ref()) {
        return out
            .bad(format!("{path}.mesh"), "the mesh's own TLS is the workload's certificate and the mesh's roots");
    }
    if client_roots.is_none() && (*require_client_certificate || !trust_domains.is_empty()) {
        return out
            .bad(format!("{path}.client_roots"), "client certificates are checked against roots, and there are none");
    }
    let mut common = common(out, path, Some(certificate), alpn)?;
    let minimum = match min_version {
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    common.tls_params = Some(TlsParameters {
        tls_minimum_protocol_version: minimum.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    });
    common.validation_context_type = client_roots.as_ref().map(|roots| {
        let names =
            trust_domains.iter().map(|domain| san(SanType::Uri, MatchPattern::Prefix(format!("spiffe://{domain}/"))));
        validation(
            out,
            roots,
            CertificateValidationContext {
                match_typed_subject_alt_names: names.collect(),
                ..CertificateValidationContext::default()
            },
        )
    });
    Ok(socket(
        names::SOCKET_TLS,
        &DownstreamTlsContext {
            common_tls_context: Some(common),
            require_client_certificate: wire::boolean(*require_client_certificate),
            ..DownstreamTlsContext::default()
        },
    ))
}

fn san(kind: SanType, pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(wire::matcher(pattern, false)),
        ..SubjectAltNameMatcher::default()
    }
}

/// The exact name that a server must prove: an identity or a DNS name.
fn exact_san(name: &str) -> SubjectAltNameMatcher {
    let kind = if name.contains("://") { SanType::Uri } else { SanType::Dns };
    san(kind, MatchPattern::Exact(name.to_owned()))
}

pub(super) fn client(out: Out<'_>, path: &str, tls: &ClientTls) -> Result<TransportSocket, EncodeError> {
    let ClientTls { sni, alpn, certificate, roots, subject_alt_names, insecure, mesh } = tls;
    if *mesh != of_mesh(certificate.as_ref(), roots.as_ref()) || (*mesh && *insecure) {
        return out
            .bad(format!("{path}.mesh"), "the mesh's own TLS is the workload's certificate and the mesh's roots");
    }
    if *insecure && !subject_alt_names.is_empty() {
        return out.bad(format!("{path}.subject_alt_names"), "names are not checked where anything is taken");
    }
    if sni.as_deref() == Some("") {
        return out.bad(format!("{path}.sni"), "empty");
    }
    let mut common = common(out, path, certificate.as_ref(), alpn)?;
    let by_name = !*mesh && !*insecure && subject_alt_names.is_empty();
    let names = match sni {
        // Readers that do not know the newer field check this; where the field is known it replaces the list.
        Some(name) if by_name => vec![exact_san(name)],
        _ => subject_alt_names.iter().map(|name| exact_san(name)).collect(),
    };
    let mut checks = CertificateValidationContext {
        match_typed_subject_alt_names: names,
        ..CertificateValidationContext::default()
    };
    if *insecure {
        checks.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
    }
    common.validation_context_type = match (roots, out.dialect) {
        (Some(roots), _) => Some(validation(out, roots, checks)),
        (None, _) if *insecure => None,
        (None, Dialect::Ours) => {
            checks.system_root_certs = Some(SystemRootCerts {});
            Some(ValidationContextType::ValidationContext(checks))
        }
        (None, Dialect::Envoy) => Some(validation(out, &RootsRef::File(names::MACHINE_ROOTS.to_owned()), checks)),
        (None, Dialect::Grpc) => return out.bad(format!("{path}.roots"), "a gRPC client has no roots but the mesh's"),
    };
    Ok(socket(
        names::SOCKET_TLS,
        &UpstreamTlsContext {
            common_tls_context: Some(common),
            sni: sni.clone().unwrap_or_default(),
            auto_sni_san_validation: by_name,
            ..UpstreamTlsContext::default()
        },
    ))
}
