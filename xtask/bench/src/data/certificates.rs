//! A root and one identity for each side, as the files that every program of the bench reads.
//!
//! Never here: who may be whom; these live as long as the bench. Called by `data`.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::floor::NAME;

/// Service account of the calling side.
pub(super) const CLIENT: &str = "productpage";
/// Service account of the serving side.
pub(super) const SERVER: &str = "reviews";

/// Writes `DIR/ACCOUNT/{cert-chain,key,root-cert}.pem`.
pub(super) fn write(dir: &Path) -> Result<()> {
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (root.not_before, root.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    let root_pem = root.self_signed(&root_key)?.pem();
    let issuer = Issuer::new(root, root_key);
    for account in [CLIENT, SERVER] {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.distinguished_name = DistinguishedName::new();
        let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
        leaf.subject_alt_names = vec![SanType::URI(identity.try_into()?), SanType::DnsName(NAME.try_into()?)];
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        let folder = dir.join(account);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("cert-chain.pem"), leaf.signed_by(&key, &issuer)?.pem())?;
        fs::write(folder.join("key.pem"), key.serialize_pem())?;
        fs::write(folder.join("root-cert.pem"), &root_pem)?;
    }
    Ok(())
}
