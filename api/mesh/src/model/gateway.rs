//! Reads a Gateway.
//!
//! A server that asks for protection which is not enforced yet is refused; stored all the same, it serves nothing.
//! Never here: merging of Gateways, routes (`mesh`). Called by `model::parse`.

use api::{name::Host, note::Notes, spec::TlsVersion};

use super::{
    base::{Judge, Meta},
    rule::{Gateway, Server, ServerCertificate, ServerClients, ServerHost, ServerMode},
    service::Protocol,
    text,
};
use crate::object::{Object, networking as raw};

pub(crate) fn parse(object: &Object<raw::Gateway>, notes: &mut Notes) -> Option<Gateway> {
    let meta = Meta::of("Gateway", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let raw::Gateway { selector, servers } = &object.spec;
    let selector = text::selector(&mut judge, "spec.selector", selector);
    if servers.is_empty() {
        judge.error("spec.servers", "required: at least one server");
    }
    let mut closed = false;
    let mut all: Vec<Server> = Vec::with_capacity(servers.len());
    for (index, raw) in servers.iter().enumerate() {
        let Some(server) = server(&mut judge, index, raw, meta.namespace()) else { continue };
        closed |= server.mode == ServerMode::Closed;
        if all.iter().any(|other| other.port_name == server.port_name) {
            judge.error(format!("spec.servers[{index}].port.name"), "port names in servers must be unique");
            continue;
        }
        all.push(server);
    }
    // closing a server is the safe answer to an object that should not be stored; any other error keeps the old version
    let usable = judge.errors() == 0 || closed && !all.is_empty();
    usable.then_some(Gateway { meta, selector, servers: all })
}

fn server(judge: &mut Judge<'_>, index: usize, raw: &raw::Server, namespace: &str) -> Option<Server> {
    let path = format!("spec.servers[{index}]");
    let raw::Server { port, hosts, tls, name: _, bind, default_endpoint } = raw;
    judge.not_honoured(default_endpoint.is_some(), format!("{path}.defaultEndpoint"));
    let raw::GatewayPort { number, protocol, name: port_name, target_port } = port;
    judge.not_honoured(target_port.is_some_and(|port| port != 0), format!("{path}.port.targetPort"));
    if port_name.is_empty() {
        judge.error(format!("{path}.port.name"), "required");
    }
    let number = text::port(judge, &format!("{path}.port.number"), i64::from(*number));
    let known = match protocol.as_str() {
        "HTTP_PROXY" => None,
        name => Protocol::named(name).filter(|p| !matches!(p, Protocol::Redis | Protocol::Mysql)),
    };
    if known.is_none() {
        let text =
            format!("{protocol:?} is not a protocol: expected HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS");
        judge.error(format!("{path}.port.protocol"), text);
    }
    let bind = match bind.as_deref().filter(|bind| !bind.is_empty()) {
        None => None,
        Some(text) if text.starts_with("unix://") => {
            judge.error(format!("{path}.bind"), "not honoured yet: Unix domain sockets");
            None
        }
        Some(text) => Some(judge.read(format!("{path}.bind"), text.parse::<std::net::IpAddr>())?),
    };
    if hosts.is_empty() {
        judge.error(format!("{path}.hosts"), "required: at least one host");
    }
    let hosts: Vec<ServerHost> = hosts
        .iter()
        .enumerate()
        .filter_map(|(i, text)| server_host(judge, &format!("{path}.hosts[{i}]"), text, namespace))
        .collect();
    let protocol = known?;
    let port = number?;
    let mode = match tls {
        None => {
            if protocol.is_tls() {
                judge.error(format!("{path}.tls"), format!("required with protocol {}", raw.port.protocol));
            }
            ServerMode::Plain
        }
        Some(tls) => server_mode(judge, &format!("{path}.tls"), tls, protocol),
    };
    Some(Server { index, port, port_name: port_name.clone(), protocol, bind, hosts, mode })
}

fn server_host(judge: &mut Judge<'_>, path: &str, text: &str, namespace: &str) -> Option<ServerHost> {
    let (scope, host) = match text.split_once('/') {
        None => (None, text),
        Some(("*", host)) => (None, host),
        Some((".", host)) => (Some(namespace.to_owned()), host),
        Some(("", _)) => {
            judge.error(path, format!("{text:?}: the namespace before / must not be empty"));
            return None;
        }
        Some((name, host)) => (Some(name.to_owned()), host),
    };
    let host = judge.read(path, host.parse::<Host>())?;
    if !host.is_wildcard() && !host.as_str().contains('.') {
        judge.warn(path, format!("{host} is a short name; a gateway knows hosts by their full name only"));
    }
    Some(ServerHost { namespace: scope, host })
}

/// What a server does with the bytes of a connection; fields written `_` are read by `refuse_unkept`.
fn server_mode(judge: &mut Judge<'_>, path: &str, raw: &raw::ServerTls, protocol: Protocol) -> ServerMode {
    let before = judge.errors();
    let raw::ServerTls {
        https_redirect,
        mode,
        server_certificate,
        private_key,
        ca_certificates,
        ca_crl: _,
        credential_name,
        credential_names: _,
        ca_cert_credential_name: _,
        tls_certificates: _,
        subject_alt_names: _,
        verify_certificate_spki: _,
        verify_certificate_hash: _,
        min_protocol_version,
        max_protocol_version,
        cipher_suites: _,
        ecdh_curves: _,
        insecure_skip_verify: _,
    } = raw;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if protocol.is_http() {
        return plain_mode(judge, path, raw);
    }
    if !protocol.is_tls() {
        judge.error(path, "not allowed with this protocol: write HTTPS or TLS");
        return ServerMode::Closed;
    }
    let mode = mode.unwrap_or(raw::ServerTlsMode::Passthrough);
    if mode == raw::ServerTlsMode::AutoPassthrough {
        judge.error(format!("{path}.mode"), "not enforced yet: AUTO_PASSTHROUGH (all other modes are)");
    }
    let clients = clients(mode);
    // roots that no client is checked against would mislead
    let roots = set(ca_certificates);
    judge.not_enforced(roots.is_some() && clients == ServerClients::Anyone, format!("{path}.caCertificates"));

    refuse_certificate(judge, path, raw, mode);
    refuse_unkept(judge, path, raw);
    if *https_redirect == Some(true) {
        judge.error(format!("{path}.httpsRedirect"), "only with protocol HTTP");
    }
    let min_version = versions(judge, path, *min_protocol_version, *max_protocol_version);
    match mode {
        raw::ServerTlsMode::Passthrough | raw::ServerTlsMode::IstioMutual if judge.errors() > before => {
            return ServerMode::Closed;
        }
        raw::ServerTlsMode::Passthrough => return ServerMode::Passthrough,
        raw::ServerTlsMode::IstioMutual => return ServerMode::Mesh { min_version },
        raw::ServerTlsMode::Simple
        | raw::ServerTlsMode::Mutual
        | raw::ServerTlsMode::OptionalMutual
        | raw::ServerTlsMode::AutoPassthrough => {}
    }

    let files = (set(server_certificate), set(private_key), roots);
    match certificate(judge, path, mode, clients, set(credential_name), files) {
        Some(certificate) if judge.errors() == before => ServerMode::Tls { certificate, clients, min_version },
        Some(_) | None => ServerMode::Closed,
    }
}

fn is_set(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// Protocol HTTP: all that counts is the redirect.
fn plain_mode(judge: &mut Judge<'_>, path: &str, raw: &raw::ServerTls) -> ServerMode {
    let terminated = raw.mode.is_some_and(|mode| mode != raw::ServerTlsMode::Passthrough);
    if terminated || is_set(raw.credential_name.as_deref()) {
        judge.warn(
            path,
            format!("protocol HTTP has no TLS: only httpsRedirect counts; write protocol HTTPS for {path}"),
        );
    }
    if raw.https_redirect == Some(true) { ServerMode::RedirectToHttps } else { ServerMode::Plain }
}

/// Whose certificate is asked for.
fn clients(mode: raw::ServerTlsMode) -> ServerClients {
    match mode {
        raw::ServerTlsMode::Mutual => ServerClients::Proven,
        raw::ServerTlsMode::OptionalMutual => ServerClients::Optional,
        raw::ServerTlsMode::Simple
        | raw::ServerTlsMode::Passthrough
        | raw::ServerTlsMode::IstioMutual
        | raw::ServerTlsMode::AutoPassthrough => ServerClients::Anyone,
    }
}

/// Refuses a certificate of its own where a server of that mode shows none.
fn refuse_certificate(judge: &mut Judge<'_>, path: &str, raw: &raw::ServerTls, mode: raw::ServerTlsMode) {
    let why = match mode {
        raw::ServerTlsMode::Passthrough => "TLS is passed on as it is",
        raw::ServerTlsMode::IstioMutual => "the workload's own certificate is shown",
        raw::ServerTlsMode::Simple
        | raw::ServerTlsMode::Mutual
        | raw::ServerTlsMode::OptionalMutual
        | raw::ServerTlsMode::AutoPassthrough => return,
    };
    for (field, text) in [
        ("serverCertificate", &raw.server_certificate),
        ("privateKey", &raw.private_key),
        ("credentialName", &raw.credential_name),
    ] {
        if is_set(text.as_deref()) {
            judge.error(format!("{path}.{field}"), format!("not allowed with mode {}: {why}", mode.as_str()));
        }
    }
}

/// Refuses what asks for protection that is not given yet.
fn refuse_unkept(judge: &mut Judge<'_>, path: &str, raw: &raw::ServerTls) {
    for (present, field) in [
        (is_set(raw.ca_crl.as_deref()), "caCrl"),
        (is_set(raw.ca_cert_credential_name.as_deref()), "caCertCredentialName"),
        (!raw.credential_names.is_empty(), "credentialNames"),
        (!raw.tls_certificates.is_empty(), "tlsCertificates"),
        (!raw.subject_alt_names.is_empty(), "subjectAltNames"),
        (!raw.verify_certificate_spki.is_empty(), "verifyCertificateSpki"),
        (!raw.verify_certificate_hash.is_empty(), "verifyCertificateHash"),
        (!raw.cipher_suites.is_empty(), "cipherSuites"),
        (!raw.ecdh_curves.is_empty(), "ecdhCurves"),
        (raw.insecure_skip_verify == Some(true), "insecureSkipVerify"),
    ] {
        judge.not_enforced(present, format!("{path}.{field}"));
    }
}

/// The smallest version of TLS that is spoken.
fn versions(
    judge: &mut Judge<'_>,
    path: &str,
    min: Option<raw::TlsVersion>,
    max: Option<raw::TlsVersion>,
) -> TlsVersion {
    use raw::TlsVersion as Raw;
    if matches!(min, Some(Raw::V1_0 | Raw::V1_1)) {
        judge.warn(format!("{path}.minProtocolVersion"), "TLS below 1.2 is not spoken: 1.2 is the smallest version");
    }
    let capped = matches!(max, Some(Raw::V1_0 | Raw::V1_1 | Raw::V1_2));
    judge.not_honoured(capped, format!("{path}.maxProtocolVersion"));
    match min {
        None | Some(Raw::Auto | Raw::V1_0 | Raw::V1_1 | Raw::V1_2) => TlsVersion::V1_2,
        Some(Raw::V1_3) => TlsVersion::V1_3,
    }
}

/// Where a server's certificate is: in a Secret, or in files (chain, key, roots).
fn certificate(
    judge: &mut Judge<'_>,
    path: &str,
    mode: raw::ServerTlsMode,
    clients: ServerClients,
    credential_name: Option<String>,
    files: (Option<String>, Option<String>, Option<String>),
) -> Option<ServerCertificate> {
    let required = format!("required with mode {} where there is no credentialName", mode.as_str());
    match (credential_name, files) {
        (Some(name), (None, None, _)) => {
            Some(ServerCertificate::Secret(name.strip_prefix("kubernetes://").map_or(name.clone(), str::to_owned)))
        }
        (None, (Some(_), Some(_), None)) if clients != ServerClients::Anyone => {
            judge.error(format!("{path}.caCertificates"), required);
            None
        }
        (None, (Some(chain), Some(key), roots)) => Some(ServerCertificate::Files { chain, key, roots }),
        (Some(_), _) => {
            judge.error(format!("{path}.credentialName"), "not allowed together with serverCertificate and privateKey");
            None
        }
        // that mode is refused already
        (None, _) if mode == raw::ServerTlsMode::AutoPassthrough => None,
        (None, (chain, key, _)) => {
            for (field, missing) in [("serverCertificate", chain.is_none()), ("privateKey", key.is_none())] {
                if missing {
                    judge.error(format!("{path}.{field}"), required.clone());
                }
            }
            None
        }
    }
}
