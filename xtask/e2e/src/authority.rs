//! A certificate authority of a test's own, or the mesh's own with its key: signs whatever it is asked to.
//!
//! Never here: which certificate should be accepted. Called by suites without citadel, and by those that forge.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A root and its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    key: String,
}

/// A certificate with its key, as PEM.
pub struct Signed {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// The root that signed it.
    pub root: String,
}

/// A name that a certificate may hold.
///
/// # Errors
/// It is not ASCII.
pub fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into()?))
}

/// A SPIFFE identity, or another URI, that a certificate may hold.
///
/// # Errors
/// It is not ASCII.
pub fn uri(text: &str) -> Result<SanType> {
    Ok(SanType::URI(text.try_into()?))
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (root.not_before, root.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        let (text, key_text) = (root.self_signed(&key)?.pem(), key.serialize_pem());
        Ok(Self { issuer: Issuer::new(root, key), root: text, key: key_text })
    }

    /// One whose certificate and key are known.
    ///
    /// # Errors
    /// They are not PEM of a certificate and a key.
    pub fn of(root: &str, key: &str) -> Result<Self> {
        let issuer = Issuer::from_ca_cert_pem(root, KeyPair::from_pem(key)?)?;
        Ok(Self { issuer, root: root.to_owned(), key: key.to_owned() })
    }

    /// The root, as PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Its key, as PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Signs a certificate for both ends of a connection.
    ///
    /// # Errors
    /// No key can be made.
    pub fn sign(&self, name: SanType) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![name];
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        Ok(Signed {
            chain: leaf.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            root: self.root.clone(),
        })
    }
}

impl Signed {
    /// Writes the three files that programs read an identity from.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("cert-chain.pem"), &self.chain)?;
        fs::write(folder.join("key.pem"), &self.key)?;
        Ok(fs::write(folder.join("root-cert.pem"), &self.root)?)
    }
}
