//! TLS on both sides, and secrets. Everything here guards something: what is not honoured is refused.
//!
//! Never here: keys inside listeners or clusters, which come as secrets or files. Called by `decode`, `listener`, `cluster`.

use api::spec::{CertificateRef, ClientTls, ProxyVersion, RootsRef, Secret, SecretValue, ServerTls, TlsVersion};
use envoy_types::pb::envoy::{
    config::core::v3::{TransportSocket, proxy_protocol_config::Version, transport_socket::ConfigType},
    extensions::transport_sockets::{
        proxy_protocol::v3::ProxyProtocolUpstreamTransport,
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            self as pb, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            UpstreamTlsContext, certificate_validation_context::TrustChainVerification,
            common_tls_context::ValidationContextType, secret, tls_parameters::TlsProtocol,
        },
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use prost::Name as _;

use super::{DecodeError, In, read};
use crate::names;

pub(super) fn secret(input: &In<'_>, raw: pb::Secret) -> Result<Secret, DecodeError> {
    let bytes = |path: &str, source: Option<&_>| {
        source.and_then(read::inline).ok_or_else(|| input.invalid(path, "only inline values are taken"))
    };
    let value = match &raw.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            refuse_key_features(input, "tls_certificate.", certificate)?;
            SecretValue::Certificate {
                chain: bytes("tls_certificate.certificate_chain", certificate.certificate_chain.as_ref())?,
                key: bytes("tls_certificate.private_key", certificate.private_key.as_ref())?,
            }
        }
        Some(secret::Type::ValidationContext(context)) => {
            let path = "validation_context.";
            refuse_checks(input, path, context)?;
            let named = !context.match_typed_subject_alt_names.is_empty() || names_of(context).next().is_some();
            input.refuse(
                named,
                path,
                "match_typed_subject_alt_names",
                "names are checked by listeners and clusters only",
            )?;
            SecretValue::Roots(bytes("validation_context.trusted_ca", context.trusted_ca.as_ref())?)
        }
        Some(secret::Type::SessionTicketKeys(_) | secret::Type::GenericSecret(_)) | None => {
            return Err(input.invalid("type", "neither a certificate nor roots"));
        }
    };
    Ok(Secret { name: raw.name, value })
}

/// A client's socket without the header of the PROXY protocol that may come before it.
pub(super) fn unwrapped(
    input: &mut In<'_>,
    path: &str,
    raw: &TransportSocket,
) -> Result<(Option<ProxyVersion>, Option<TransportSocket>), DecodeError> {
    let outer = match &raw.config_type {
        Some(ConfigType::TypedConfig(any)) if any.type_url == ProxyProtocolUpstreamTransport::type_url() => {
            read::message::<ProxyProtocolUpstreamTransport>(input, path, any)?
        }
        Some(ConfigType::TypedConfig(_)) | None => return Ok((None, Some(raw.clone()))),
    };
    let config = outer.config.unwrap_or_default();
    input.ignore(config.pass_through_tlvs.is_some() || !config.added_tlvs.is_empty(), path, "config.tlvs");
    let version = match Version::try_from(config.version) {
        Ok(Version::V1) => ProxyVersion::V1,
        Ok(Version::V2) => ProxyVersion::V2,
        Err(_) => return Err(input.invalid(format!("{path}config.version"), "unknown")),
    };
    Ok((Some(version), outer.transport_socket))
}

/// TLS of a transport socket, where it has one.
pub(super) enum Socket<T> {
    Raw,
    Tls(T),
}

fn socket<M: prost::Name + Default>(
    input: &In<'_>,
    path: &str,
    raw: &TransportSocket,
) -> Result<Socket<M>, DecodeError> {
    let Some(ConfigType::TypedConfig(any)) = &raw.config_type else {
        return if raw.name == names::SOCKET_RAW {
            Ok(Socket::Raw)
        } else {
            Err(input.invalid(path, "no configuration"))
        };
    };
    if any.type_url == <RawBuffer as prost::Name>::type_url() {
        Ok(Socket::Raw)
    } else if any.type_url == M::type_url() {
        read::message(input, path, any).map(Socket::Tls)
    } else {
        Err(input.guards(path, format!("transport socket {} is not spoken", any.type_url)))
    }
}

fn refuse_key_features(input: &In<'_>, path: &str, raw: &pb::TlsCertificate) -> Result<(), DecodeError> {
    input.refuse(raw.pkcs12.is_some(), path, "pkcs12", "PKCS#12 is not read")?;
    input.refuse(raw.password.is_some(), path, "password", "encrypted keys are not read")?;
    input.refuse(raw.private_key_provider.is_some(), path, "private_key_provider", "keys elsewhere are not used")
}

fn refuse_checks(input: &In<'_>, path: &str, raw: &CertificateValidationContext) -> Result<(), DecodeError> {
    input.refuse(!raw.verify_certificate_spki.is_empty(), path, "verify_certificate_spki", "keys are not pinned")?;
    input.refuse(
        !raw.verify_certificate_hash.is_empty(),
        path,
        "verify_certificate_hash",
        "certificates are not pinned",
    )?;
    input.refuse(raw.crl.is_some(), path, "crl", "revocation lists are not checked")?;
    input.refuse(
        raw.custom_validator_config.is_some(),
        path,
        "custom_validator_config",
        "custom validators are not run",
    )?;
    input.refuse(raw.max_verify_depth.is_some(), path, "max_verify_depth", "the length of chains is not checked")?;
    input.refuse(
        read::truth(raw.require_signed_certificate_timestamp.as_ref(), false),
        path,
        "require_signed_certificate_timestamp",
        "timestamps are not checked",
    )
}

fn refuse_common(input: &In<'_>, path: &str, raw: &CommonTlsContext) -> Result<(), DecodeError> {
    let selectors = raw.custom_tls_certificate_selector.is_some();
    input.refuse(selectors, path, "custom_tls_certificate_selector", "certificates are not selected by extensions")?;
    input.refuse(raw.custom_handshaker.is_some(), path, "custom_handshaker", "other handshakes are not spoken")?;
    let maximum = raw.tls_params.as_ref().map_or(0, |params| params.tls_maximum_protocol_version);
    input.refuse(
        [TlsProtocol::TlSv10, TlsProtocol::TlSv11].map(i32::from).contains(&maximum),
        path,
        "tls_params.tls_maximum_protocol_version",
        "nothing below TLS 1.2 is spoken",
    )
}

/// A certificate with its key: the one named, or the first of several.
fn certificate(input: &mut In<'_>, path: &str, raw: &CommonTlsContext) -> Result<Option<CertificateRef>, DecodeError> {
    let count = raw.tls_certificates.len() + raw.tls_certificate_sds_secret_configs.len();
    if count > 1 {
        input.note(format!("{path}tls_certificates"), "only the first certificate is shown");
    }
    if let Some(sds) = raw.tls_certificate_sds_secret_configs.first() {
        let local = names::SECRET_WORKLOAD;
        let name = sds_name(input, &format!("{path}tls_certificate_sds_secret_configs[0]"), sds, local)?;
        return Ok(Some(name.map_or(CertificateRef::Workload, CertificateRef::Secret)));
    }
    if let Some(files) = raw.tls_certificates.first() {
        let path = format!("{path}tls_certificates[0].");
        refuse_key_features(input, &path, files)?;
        return match (read::file(files.certificate_chain.as_ref()), read::file(files.private_key.as_ref())) {
            (Some(chain), Some(key)) => Ok(Some(CertificateRef::Files { chain, key })),
            _ => Err(input.guards(path, "certificates in place are not taken: send a secret or name files")),
        };
    }
    if let Some(provider) = &raw.tls_certificate_provider_instance {
        return match provider.instance_name.as_str() {
            names::GRPC_PROVIDER => Ok(Some(CertificateRef::Workload)),
            other => {
                Err(input.guards(format!("{path}tls_certificate_provider_instance"), format!("no provider {other:?}")))
            }
        };
    }
    Ok(None)
}

/// The name of a secret to subscribe to; none for the one that the agent serves.
fn sds_name(input: &In<'_>, path: &str, raw: &SdsSecretConfig, local: &str) -> Result<Option<String>, DecodeError> {
    if raw.name.is_empty() {
        return Err(input.invalid(path, "no name"));
    }
    let ads = read::is_ads(raw.sds_config.as_ref());
    match (raw.name == local, ads, raw.sds_config.is_none()) {
        (true, false, _) => Ok(None),
        (_, true, _) | (_, _, true) => Ok(Some(raw.name.clone())),
        (false, false, false) => {
            Err(input.guards(path, format!("secret {:?} comes from where we do not ask", raw.name)))
        }
    }
}

/// What the peer must prove.
struct Checks {
    roots: Option<RootsRef>,
    machine_roots: bool,
    names: Vec<StringMatcher>,
    untrusted: bool,
}

fn names_of(raw: &CertificateValidationContext) -> impl Iterator<Item = &StringMatcher> {
    let older = raw.match_subject_alt_names.iter();
    raw.match_typed_subject_alt_names.iter().filter_map(|typed| typed.matcher.as_ref()).chain(older)
}

fn checks(input: &In<'_>, path: &str, raw: Option<&ValidationContextType>) -> Result<Option<Checks>, DecodeError> {
    let mut sds = None;
    let context = match raw {
        None => return Ok(None),
        Some(ValidationContextType::ValidationContext(context)) => Some(context),
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            sds = Some(config);
            None
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            sds = combined.validation_context_sds_secret_config.as_ref();
            combined.default_validation_context.as_ref()
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => return Err(input.guards(path, "certificate providers are not asked")),
    };
    let mut checks = Checks { roots: None, machine_roots: false, names: Vec::new(), untrusted: false };
    if let Some(context) = context {
        refuse_checks(input, path, context)?;
        checks.names = names_of(context).cloned().collect();
        checks.untrusted = context.trust_chain_verification == i32::from(TrustChainVerification::AcceptUntrusted);
        checks.machine_roots = context.system_root_certs.is_some();
        checks.roots = match (&context.trusted_ca, &context.ca_certificate_provider_instance) {
            (Some(source), _) => match read::file(Some(source)) {
                Some(path) => Some(RootsRef::File(path)),
                None => {
                    return Err(input.guards(
                        format!("{path}trusted_ca"),
                        "roots in place are not taken: send a secret or name a file",
                    ));
                }
            },
            (None, Some(provider)) if provider.instance_name == names::GRPC_PROVIDER => Some(RootsRef::Mesh),
            (None, Some(_)) => {
                return Err(input.guards(format!("{path}ca_certificate_provider_instance"), "unknown provider"));
            }
            (None, None) => None,
        };
    }
    if let Some(config) = sds {
        let name =
            sds_name(input, &format!("{path}validation_context_sds_secret_config"), config, names::SECRET_ROOTS)?;
        checks.roots = Some(name.map_or(RootsRef::Mesh, RootsRef::Secret));
    }
    Ok(Some(checks))
}

pub(super) fn server(input: &mut In<'_>, path: &str, raw: &TransportSocket) -> Result<Option<ServerTls>, DecodeError> {
    let Socket::Tls(tls) = socket::<DownstreamTlsContext>(input, path, raw)? else { return Ok(None) };
    input.refuse(
        read::truth(tls.require_sni.as_ref(), false),
        path,
        "require_sni",
        "clients without a name are not refused",
    )?;
    input.refuse(tls.ocsp_staple_policy == 2, path, "ocsp_staple_policy", "staples are not shown")?;
    let common = tls.common_tls_context.unwrap_or_default();
    let path = format!("{path}common_tls_context.");
    refuse_common(input, &path, &common)?;
    let Some(certificate) = certificate(input, &path, &common)? else {
        return Err(input.invalid(format!("{path}tls_certificates"), "none"));
    };
    let minimum = common.tls_params.as_ref().map_or(0, |params| params.tls_minimum_protocol_version);
    let require = read::truth(tls.require_client_certificate.as_ref(), false);
    let checks = checks(input, &path, common.validation_context_type.as_ref())?;
    let (client_roots, names) = match checks {
        None => (None, Vec::new()),
        Some(Checks { roots: Some(roots), names, machine_roots: _, untrusted: _ }) => (Some(roots), names),
        Some(_) => return Err(input.guards(path, "client certificates are checked against roots, and none are named")),
    };
    if require && client_roots.is_none() {
        return Err(input.guards(path, "client certificates are checked against roots, and none are named"));
    }
    let trust_domains = names
        .iter()
        .map(|name| match &name.match_pattern {
            Some(MatchPattern::Prefix(prefix)) => prefix
                .strip_prefix("spiffe://")
                .and_then(|rest| rest.strip_suffix('/'))
                .filter(|domain| !domain.is_empty() && !domain.contains('/')),
            _ => None,
        })
        .map(|domain| domain.map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            input.guards(format!("{path}match_typed_subject_alt_names"), "of clients only trust domains are checked")
        })?;
    let mesh = certificate == CertificateRef::Workload && client_roots == Some(RootsRef::Mesh);
    Ok(Some(ServerTls {
        certificate,
        client_roots,
        require_client_certificate: require,
        trust_domains,
        alpn: common.alpn_protocols,
        mesh,
        min_version: if minimum == i32::from(TlsProtocol::TlSv13) { TlsVersion::V1_3 } else { TlsVersion::V1_2 },
    }))
}

pub(super) fn client(input: &mut In<'_>, path: &str, raw: &TransportSocket) -> Result<Option<ClientTls>, DecodeError> {
    let Socket::Tls(tls) = socket::<UpstreamTlsContext>(input, path, raw)? else { return Ok(None) };
    let by_name = tls.auto_sni_san_validation;
    let common = tls.common_tls_context.unwrap_or_default();
    let path = format!("{path}common_tls_context.");
    refuse_common(input, &path, &common)?;
    let certificate = certificate(input, &path, &common)?;
    let checks = checks(input, &path, common.validation_context_type.as_ref())?;
    let (roots, names, insecure) = match checks {
        None => (None, Vec::new(), true),
        Some(Checks { roots, names, machine_roots, untrusted }) => {
            // Without roots nothing can be verified, and Envoy does not try.
            let insecure = untrusted || (roots.is_none() && !machine_roots);
            (roots, names, insecure)
        }
    };
    if insecure && !names.is_empty() {
        return Err(input.guards(path, "names are checked only where certificates are"));
    }
    let mut subject_alt_names = Vec::with_capacity(names.len());
    for name in names.iter().filter(|_| !by_name) {
        match &name.match_pattern {
            Some(MatchPattern::Exact(text)) => subject_alt_names.push(text.clone()),
            _ => {
                return Err(input.guards(
                    format!("{path}match_typed_subject_alt_names"),
                    "of servers only whole names are checked",
                ));
            }
        }
    }
    let mesh = !insecure && certificate == Some(CertificateRef::Workload) && roots == Some(RootsRef::Mesh);
    if !mesh && !insecure && !by_name && subject_alt_names.is_empty() {
        input.note(
            format!("{path}validation_context"),
            "the server's name is checked too, although nothing asks for it",
        );
    }
    Ok(Some(ClientTls {
        sni: (!tls.sni.is_empty()).then_some(tls.sni),
        alpn: common.alpn_protocols,
        certificate,
        roots,
        subject_alt_names,
        insecure,
        mesh,
    }))
}
