//! Signs: a request's public key and a grant become a certificate.
//!
//! Of a request only the public key is used, after its signature has shown that the caller holds the key. Names, lifetime
//! and usages come from the grant. Never here: who may have what (`policy`), clocks, luck. Called by `serve`.

use std::{net::IpAddr, time::SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKey, SanType, SerialNumber,
};
use x509_parser::{pem::parse_x509_pem, prelude::FromDer as _, public_key::PublicKey as KeyShape};

use crate::{
    limits::{REQUEST_BYTES_MAX, RSA_BITS, SKEW},
    policy::Grant,
    root::Root,
};

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// It cannot be read, or its signature is wrong.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    /// It asks to become an authority.
    #[error("the certificate request asks for a CA certificate")]
    Authority,
    /// Its key is too weak or too large.
    #[error("the certificate request has an RSA key of {0} bits; allowed are 2048 to 8192")]
    KeySize(usize),
    /// The root has ended.
    #[error("the root certificate has expired")]
    RootExpired,
    /// The certificate could not be made.
    #[error("the certificate could not be signed")]
    Sign(#[from] rcgen::Error),
}

/// What a request holds.
#[derive(Debug)]
pub(crate) struct Request {
    key: PublicKey,
    /// Names it asks for.
    pub(crate) names: Vec<String>,
}

fn rsa_bits(csr_pem: &str) -> Option<usize> {
    let (_, pem) = parse_x509_pem(csr_pem.as_bytes()).ok()?;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
    if let KeyShape::RSA(key) = csr.certification_request_info.subject_pki.parsed().ok()? {
        Some(key.key_size())
    } else {
        None
    }
}

fn name(san: &SanType) -> String {
    match san {
        SanType::URI(name) | SanType::DnsName(name) | SanType::Rfc822Name(name) => name.to_string(),
        SanType::IpAddress(address) => IpAddr::to_string(address),
        other @ (SanType::OtherName(_) | _) => format!("{other:?}"),
    }
}

/// Reads a request (PEM) and checks that whoever made it holds its key.
pub(crate) fn read(csr_pem: &str) -> Result<Request, IssueError> {
    if csr_pem.len() > REQUEST_BYTES_MAX {
        return Err(IssueError::Request(format!("it is larger than {REQUEST_BYTES_MAX} bytes")));
    }
    if let Some(bits) = rsa_bits(csr_pem)
        && !RSA_BITS.contains(&bits)
    {
        return Err(IssueError::KeySize(bits));
    }
    let CertificateSigningRequestParams { params, public_key } =
        CertificateSigningRequestParams::from_pem(csr_pem).map_err(|error| IssueError::Request(error.to_string()))?;
    match params.is_ca {
        IsCa::Ca(_) => Err(IssueError::Authority),
        IsCa::NoCa | IsCa::ExplicitNoCa => {
            Ok(Request { key: public_key, names: params.subject_alt_names.iter().map(name).collect() })
        }
    }
}

/// Makes the certificate: PEM, leaf first, root last.
pub(crate) fn certificate(
    request: &Request,
    grant: &Grant,
    root: &Root,
    now: SystemTime,
    serial: [u8; 16],
) -> Result<Vec<String>, IssueError> {
    if root.not_after() <= now {
        return Err(IssueError::RootExpired);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + grant.lifetime).min(root.not_after()).into();
    // Positive, as RFC 5280 wants.
    let mut serial = serial;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names.push(SanType::URI(grant.identity.to_string().try_into()?));
    for name in &grant.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    let leaf = params.signed_by(&request.key, root.issuer())?.pem();
    Ok(std::iter::once(leaf).chain(root.chain().iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::{policy::tests::policy, root::Root};

    fn csr(change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        change(&mut params);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn grant(lifetime: Duration) -> Grant {
        let identity = "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap();
        Grant { identity, dns_names: vec!["istiod.istio-system.svc".into()], lifetime }
    }

    #[test]
    fn only_the_public_key_of_a_request_is_used() {
        let root = Root::generate(&policy().trust_domain, now()).unwrap();
        let request = read(&csr(|params| {
            params.subject_alt_names =
                vec![SanType::URI("spiffe://cluster.local/ns/shop/sa/admin".try_into().unwrap())];
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }))
        .unwrap();
        assert_eq!(request.names, ["spiffe://cluster.local/ns/shop/sa/admin"]);
        let chain = certificate(&request, &grant(Duration::from_secs(3_600)), &root, now(), [0xff; 16]).unwrap();
        assert_eq!(chain.len(), 2);
        let (_, pem) = parse_x509_pem(chain[0].as_bytes()).unwrap();
        let leaf = pem.parse_x509().unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        let names: Vec<String> = san.value.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["URI(spiffe://cluster.local/ns/shop/sa/reviews)", "DNSName(istiod.istio-system.svc)"]);
        assert!(!leaf.is_ca());
        assert_eq!(leaf.subject().iter().count(), 0);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.code_signing);
        assert_eq!(leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp(), 3_720);
        assert!(leaf.verify_signature(Some(root_key(&chain[1]).as_ref().unwrap())).is_ok());
    }

    /// The root's key, kept alive for the comparison.
    fn root_key(pem: &str) -> Option<x509_parser::x509::SubjectPublicKeyInfo<'static>> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
        let contents: &'static [u8] = pem.contents.leak();
        Some(x509_parser::parse_x509_certificate(contents).ok()?.1.tbs_certificate.subject_pki)
    }

    #[test]
    fn requests_that_are_wrong_are_refused() {
        let authority = csr(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(matches!(read(&authority), Err(IssueError::Authority)));
        assert!(matches!(read("nothing"), Err(IssueError::Request(_))));
        assert!(matches!(read(&"x".repeat(REQUEST_BYTES_MAX + 1)), Err(IssueError::Request(_))));
        let weak = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rsa-1024.csr.pem")).unwrap();
        assert!(matches!(read(&weak), Err(IssueError::KeySize(1_024))));
    }

    #[test]
    fn a_request_whose_signature_is_wrong_is_refused() {
        let good = csr(|_| {});
        let body: String = good.lines().filter(|line| !line.starts_with("---")).collect();
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut der = STANDARD.decode(body).unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        let bad = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        assert!(matches!(read(&bad), Err(IssueError::Request(_))));
    }

    #[test]
    fn a_certificate_does_not_outlive_its_root() {
        let root = Root::generate("cluster.local", now()).unwrap();
        let late = root.not_after() - Duration::from_secs(60);
        let request = read(&csr(|_| {})).unwrap();
        let chain = certificate(&request, &grant(Duration::from_secs(3_600)), &root, late, [1; 16]).unwrap();
        let (_, pem) = parse_x509_pem(chain[0].as_bytes()).unwrap();
        let end = pem.parse_x509().unwrap().validity().not_after.timestamp();
        assert_eq!(SystemTime::UNIX_EPOCH + Duration::from_secs(end.unsigned_abs()), root.not_after());
        let after = certificate(&request, &grant(Duration::from_secs(1)), &root, root.not_after(), [1; 16]);
        assert!(matches!(after, Err(IssueError::RootExpired)));
    }
}
