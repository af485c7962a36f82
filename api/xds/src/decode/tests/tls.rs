//! TLS to servers and to clients: who must prove what, or refused at its place.
//!
//! Never here: other guards (`guards`). Part of `decode`'s tests.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as tls, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    UpstreamTlsContext, common_tls_context::ValidationContextType,
};

use super::*;

fn socket<M: Name>(context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(context))),
    }
}

fn file(path: &str) -> Option<core::DataSource> {
    Some(core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..Default::default()
    })
}

fn client(context: CertificateValidationContext) -> cluster::Cluster {
    let mut wire = cluster_named("a");
    wire.transport_socket = Some(socket(&UpstreamTlsContext {
        sni: "a.com".to_owned(),
        common_tls_context: Some(CommonTlsContext {
            validation_context_type: Some(ValidationContextType::ValidationContext(context)),
            ..Default::default()
        }),
        ..Default::default()
    }));
    wire
}

#[test]
fn tls_to_servers() {
    let roots = || CertificateValidationContext { trusted_ca: file("/roots.pem"), ..Default::default() };
    let named = |pattern| CertificateValidationContext { match_subject_alt_names: vec![string(pattern)], ..roots() };
    let resource = served(&client(named(exact("spiffe://td/ns/a/sa/b"))));
    let UpstreamTls::On(tls) = &cluster_of(&resource).tls else { panic!("{resource:?}") };
    assert_eq!(tls.roots, Some(RootsRef::File("/roots.pem".to_owned())));
    assert_eq!(tls.subject_alt_names, ["spiffe://td/ns/a/sa/b"]);
    assert!(!tls.insecure && !tls.mesh);
    let (resource, _) = read(&client(CertificateValidationContext::default())).unwrap();
    let UpstreamTls::On(tls) = &cluster_of(&resource).tls else { panic!("{resource:?}") };
    assert!(tls.insecure, "without roots Envoy takes anything");

    refused(&client(named(MatchPattern::Prefix("spiffe://td/".to_owned()))), "match_typed_subject_alt_names", true);
    refused(&client(CertificateValidationContext { crl: file("/crl"), ..roots() }), "crl", true);
    refused(
        &client(CertificateValidationContext { verify_certificate_hash: vec!["x".to_owned()], ..roots() }),
        "verify_certificate_hash",
        true,
    );
    refused(
        &client(CertificateValidationContext { custom_validator_config: Some(Default::default()), ..roots() }),
        "custom_validator_config",
        true,
    );
    let mut unknown = cluster_named("a");
    unknown.transport_socket = Some(core::TransportSocket {
        name: "quic".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(opaque(
            "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
        ))),
    });
    refused(&unknown, "transport_socket", true);
    let mut by_label = cluster_named("a");
    by_label.transport_socket_matches = vec![cluster::cluster::TransportSocketMatch {
        r#match: Some(object(&[("zone", "a")])),
        transport_socket: Some(socket(&UpstreamTlsContext::default())),
        ..Default::default()
    }];
    refused(&by_label, "transport_socket_matches[0]", true);
}

fn server(context: &DownstreamTlsContext) -> listener::Listener {
    let mut listener = http_listener(&manager(vec![router()]));
    listener.filter_chains[0].transport_socket = Some(socket(context));
    listener
}

#[test]
fn tls_to_clients() {
    let sds = |name: &str, ads: bool| SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(if ads {
                core::config_source::ConfigSourceSpecifier::Ads(Default::default())
            } else {
                core::config_source::ConfigSourceSpecifier::ApiConfigSource(Default::default())
            }),
            ..Default::default()
        }),
    };
    let common = |name: &str, ads| CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![sds(name, ads)],
        ..Default::default()
    };
    let certificate = |common| {
        let context = DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let Resource::Listener(listener) = served(&server(&context)) else { panic!("a listener") };
        listener.chains[0].tls.as_ref().unwrap().certificate.clone()
    };
    assert_eq!(certificate(common("default", false)), CertificateRef::Workload);
    assert_eq!(certificate(common("default", true)), CertificateRef::Secret("default".to_owned()));
    assert_eq!(certificate(common("shop-cert", true)), CertificateRef::Secret("shop-cert".to_owned()));
    let files = tls::TlsCertificate { certificate_chain: file("/c"), private_key: file("/k"), ..Default::default() };
    let in_files = CommonTlsContext { tls_certificates: vec![files], ..Default::default() };
    assert_eq!(certificate(in_files), CertificateRef::Files { chain: "/c".to_owned(), key: "/k".to_owned() });

    let check = |place: &str, bend: &dyn Fn(&mut DownstreamTlsContext)| {
        let mut context =
            DownstreamTlsContext { common_tls_context: Some(common("default", false)), ..Default::default() };
        bend(&mut context);
        refused(&server(&context), place, true);
    };
    check("require_sni", &|context| context.require_sni = truth(true));
    check("common_tls_context", &|context| context.require_client_certificate = truth(true));
    check("tls_certificate_sds_secret_configs", &|context| {
        context.common_tls_context = Some(common("elsewhere", false))
    });
    check("match_typed_subject_alt_names", &|context| {
        let checks = CertificateValidationContext {
            trusted_ca: file("/roots.pem"),
            match_subject_alt_names: vec![string(exact("spiffe://td/ns/a/sa/b"))],
            ..Default::default()
        };
        let common = context.common_tls_context.get_or_insert_default();
        common.validation_context_type = Some(ValidationContextType::ValidationContext(checks));
    });
    refused(&server(&DownstreamTlsContext::default()), "tls_certificates", false);
}

#[test]
fn client_certificates_of_some_trust_domains() {
    let names = ["spiffe://a/", "spiffe://b/"].map(|text| string(MatchPattern::Prefix(text.to_owned())));
    let local = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: Some(core::ConfigSource::default()) };
    let combined = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: names.to_vec(),
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(local("ROOTCA")),
        ..Default::default()
    };
    let context = DownstreamTlsContext {
        require_client_certificate: truth(true),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![local("default")],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let Resource::Listener(listener) = served(&server(&context)) else { panic!("a listener") };
    let tls = listener.chains[0].tls.as_ref().unwrap();
    assert_eq!(tls.trust_domains, ["a", "b"]);
    assert!(tls.mesh && tls.require_client_certificate);
}
