//! The cluster's CA, its certificates, and the key that signs tokens.
//!
//! CA and token key are made once and kept in the state folder; leaf certificates are made at each start. Never here:
//! TLS sessions, claims. Called by `server` and `serve`; `token` signs with it.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::User;

/// Certificates may be used a little before they were made: clocks differ.
const SKEW: Duration = Duration::minutes(5);
const CA_LIFE: Duration = Duration::days(3_650);
const LEAF_LIFE: Duration = Duration::days(365);

/// A key or certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file of the state folder.
    #[error("could not use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Making or reading a key or certificate.
    #[error("could not make or read a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) struct Keys {
    root: String,
    ca: Issuer<'static, KeyPair>,
    pub(crate) tokens: KeyPair,
    pub(crate) server: Leaf,
}

impl Keys {
    pub(crate) fn open(folder: &Path, addresses: &[IpAddr]) -> Result<Self, KeysError> {
        let (ca_path, key_path, token_path) = (folder.join("ca.crt"), folder.join("ca.key"), folder.join("sa.key"));
        let key_pem = keep(&key_path, || Ok(KeyPair::generate()?.serialize_pem()))?;
        let ca_key = KeyPair::from_pem(&key_pem)?;
        let root = keep(&ca_path, || Ok(ca_params()?.self_signed(&ca_key)?.pem()))?;
        let ca = Issuer::from_ca_cert_pem(&root, ca_key)?;
        let token_pem = keep(&token_path, || {
            Ok(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?.serialize_pem())
        })?;
        let tokens = KeyPair::from_pem(&token_pem)?;
        let server = leaf(&ca, &server_params(addresses)?)?;
        Ok(Self { root, ca, tokens, server })
    }

    /// The root certificate.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// A client certificate: common name = user, organisations = groups.
    pub(crate) fn client(&self, user: &User) -> Result<Leaf, KeysError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, user.name.as_str());
        if let Some(group) = user.groups.iter().find(|group| *group != "system:authenticated") {
            name.push(DnType::OrganizationName, group.as_str());
        }
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf(&self.ca, &dated(params, LEAF_LIFE))
    }
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "ferromesh-sandbox-ca");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(dated(params, CA_LIFE))
}

fn server_params(addresses: &[IpAddr]) -> Result<CertificateParams, rcgen::Error> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "kube-apiserver");
    params.distinguished_name = name;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(dated(params, LEAF_LIFE))
}

fn dated(mut params: CertificateParams, life: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params.serial_number = Some(SerialNumber::from_slice(&uuid::Uuid::new_v4().as_bytes()[1..]));
    params
}

fn leaf(ca: &Issuer<'static, KeyPair>, params: &CertificateParams) -> Result<Leaf, KeysError> {
    let key = KeyPair::generate()?;
    let mut params = params.clone();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let certificate = params.signed_by(&key, ca)?;
    Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Reads a file, or makes it, readable only by its owner.
fn keep(path: &Path, make: impl FnOnce() -> Result<String, KeysError>) -> Result<String, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = make()?;
    // Written aside and renamed: a crash leaves either no file or a whole one.
    let aside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(failed)?;
    Ok(text)
}

/// The user that a verified client certificate names.
pub(crate) fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Some(User::new(name, &groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_names_its_user_and_keys_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path(), &[]).unwrap();
        let leaf = keys.client(&User::admin()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
        assert_eq!(user_of_certificate(&pem.contents).unwrap(), User::admin());
        let again = Keys::open(folder.path(), &[]).unwrap();
        assert_eq!(again.root(), keys.root());
    }
}
