//! The authority's own certificate and key: made once, kept in a Secret or a folder, or plugged in by the user.
//!
//! Secret `cacerts` (the user's) comes before `istio-ca-secret` (made here). Copies that start together agree on one:
//! whoever stores first wins, the others read. Never here: leaves (`issue`). Called at the start, and by `reload`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use api_kube::client::{is_conflict, is_not_found};
use api_rt::tls::{Certificate, Expect, Peers, Roots, RootsSlot};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

/// Lifetime of a root made here: ten years.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a trial certificate is valid, before and after it is tried.
const TRIAL: Duration = Duration::from_secs(1);
/// The user's own authority.
const PLUGGED: &str = "cacerts";
/// The authority made here.
const OURS: &str = "istio-ca-secret";

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// A part is missing.
    #[error("{place} has no {part}")]
    Missing {
        /// Secret or folder.
        place: String,
        /// Key or file.
        part: &'static str,
    },
    /// A part cannot be used.
    #[error("{place}: {reason}")]
    Bad {
        /// Secret or folder.
        place: String,
        /// Why.
        reason: String,
    },
    /// The API server could not be asked.
    #[error("could not read or store the root's Secret")]
    Kubernetes(#[from] kube::Error),
    /// A key or certificate could not be made.
    #[error("could not make a root")]
    Make(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error("could not read or write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The authority.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    /// Own certificate, PEM.
    certificate_pem: String,
    /// Own key, PEM.
    key_pem: String,
    /// What follows a leaf: intermediates (own certificate first, unless it is the root) and last the root.
    chain: Vec<String>,
    not_after: SystemTime,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The parts as they are stored.
struct Parts {
    place: String,
    certificate: String,
    key: String,
    /// Intermediates between own certificate and root.
    chain: Option<String>,
    root: Option<String>,
}

fn split(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).filter(|part| part.contains(END)).map(|part| part.trim().to_owned() + "\n").collect()
}

impl Parts {
    /// The authority of these parts, where what it signs now is accepted by who trusts its root.
    fn check(self, now: SystemTime) -> Result<Root, RootError> {
        let Self { place, certificate, key, chain, root } = self;
        let bad = |reason: String| RootError::Bad { place: place.clone(), reason };
        let own =
            split(&certificate).into_iter().next().ok_or_else(|| bad("ca-cert.pem holds no certificate".into()))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(own.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let parsed = pem.parse_x509().map_err(|error| bad(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(bad("ca-cert.pem is not the certificate of an authority (CA:TRUE)".into()));
        }
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let pair = KeyPair::from_pem(&key).map_err(|error| bad(format!("ca-key.pem: {error}")))?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(bad("ca-key.pem does not belong to ca-cert.pem".into()));
        }
        let mut follows = vec![own.clone()];
        follows.extend(chain.as_deref().map(split).unwrap_or_default());
        follows.extend(root.as_deref().map(split).unwrap_or_default());
        let mut seen = std::collections::BTreeSet::new();
        follows.retain(|one| seen.insert(one.clone()));
        let issuer = Issuer::from_ca_cert_pem(&own, pair).map_err(|error| bad(error.to_string()))?;
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        let root = Root { issuer, certificate_pem: own, key_pem: key, chain: follows, not_after };
        let trial = root.trial(now)?;
        let roots = Roots::from_pem(root.root_pem().as_bytes()).map_err(|error| bad(format!("the root: {error}")))?;
        let expect = Expect { roots: RootsSlot::holding(roots), peers: Peers::Chained };
        expect.accept(&trial, now).map_err(|error| bad(format!("what it signs does not lead to its root: {error}")))?;
        Ok(root)
    }
}

impl Root {
    /// A new one, not stored yet.
    pub(crate) fn generate(organization: &str, now: SystemTime) -> Result<Self, RootError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.not_before = (now - Duration::from_secs(120)).into();
        params.not_after = (now + LIFETIME).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let place = "the new root".to_owned();
        Parts { place, certificate, key: key.serialize_pem(), chain: None, root: None }.check(now)
    }

    /// A certificate as workloads get them, to be tried and thrown away.
    fn trial(&self, now: SystemTime) -> Result<Certificate, RootError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = (now - TRIAL).into();
        params.not_after = (now + TRIAL).into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(SanType::URI("spiffe://trial/ns/trial/sa/trial".try_into()?));
        let leaf = params.signed_by(&key, &self.issuer)?.pem();
        Certificate::from_pem(&(leaf + &self.chain.concat()), &key.serialize_pem())
            .map_err(|error| RootError::Bad { place: "a trial certificate".to_owned(), reason: error.to_string() })
    }

    /// What signs.
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// What follows a leaf, the root last.
    pub(crate) fn chain(&self) -> &[String] {
        &self.chain
    }

    /// The root that everyone trusts, PEM.
    pub(crate) fn root_pem(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }

    /// End of the authority's lifetime.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

fn parts_of(name: &str, secret: Secret) -> Result<Parts, RootError> {
    let place = format!("Secret {name}");
    let mut data = secret.data.unwrap_or_default();
    let mut part = |key: &str| {
        let text = data.remove(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        text.filter(|text| !text.trim().is_empty())
    };
    let certificate = part("ca-cert.pem").ok_or(RootError::Missing { place: place.clone(), part: "ca-cert.pem" })?;
    let key = part("ca-key.pem").ok_or(RootError::Missing { place: place.clone(), part: "ca-key.pem" })?;
    Ok(Parts { place, certificate, key, chain: part("cert-chain.pem"), root: part("root-cert.pem") })
}

async fn stored(secrets: &Api<Secret>, name: &str, now: SystemTime) -> Result<Option<Root>, RootError> {
    match secrets.get(name).await {
        Ok(secret) => parts_of(name, secret)?.check(now).map(Some),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The user's own authority, where there is one.
pub(crate) async fn plugged(secrets: &Api<Secret>, now: SystemTime) -> Result<Option<Root>, RootError> {
    stored(secrets, PLUGGED, now).await
}

/// The root from its Secret; made and stored there if there is none.
pub(crate) async fn in_cluster(secrets: &Api<Secret>, organization: &str, now: SystemTime) -> Result<Root, RootError> {
    if let Some(root) = plugged(secrets, now).await? {
        tracing::info!(secret = PLUGGED, "using the authority that the user provides");
        return Ok(root);
    }
    if let Some(root) = stored(secrets, OURS, now).await? {
        return Ok(root);
    }
    let root = Root::generate(organization, now)?;
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut secret = Secret { type_: Some("istio.io/ca-root".into()), ..Secret::default() };
    secret.metadata.name = Some(OURS.to_owned());
    secret.data = Some(
        [
            ("ca-cert.pem", bytes(&root.certificate_pem)),
            ("ca-key.pem", bytes(&root.key_pem)),
            ("root-cert.pem", bytes("")),
            ("cert-chain.pem", bytes("")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    );
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => {
            tracing::info!(secret = OURS, "made a new root");
            Ok(root)
        }
        // Another copy was faster; its root is everyone's.
        Err(error) if is_conflict(&error) => stored(secrets, OURS, now)
            .await?
            .ok_or(RootError::Missing { place: format!("Secret {OURS}"), part: "anything" }),
        Err(error) => Err(error.into()),
    }
}

/// The root from a folder, where it holds one.
pub(crate) fn read_folder(folder: &Path, now: SystemTime) -> Result<Option<Root>, RootError> {
    let read = |name: &str| {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RootError::File { path, source }),
        }
    };
    let place = folder.display().to_string();
    match (read("ca-cert.pem")?, read("ca-key.pem")?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(RootError::Missing { place, part: "ca-cert.pem" }),
        (Some(_), None) => Err(RootError::Missing { place, part: "ca-key.pem" }),
        (Some(certificate), Some(key)) => {
            let (chain, root) = (read("cert-chain.pem")?, read("root-cert.pem")?);
            Parts { place, certificate, key, chain, root }.check(now).map(Some)
        }
    }
}

/// The root from a folder; made and stored there if the folder is absent or empty.
pub(crate) fn in_folder(folder: &Path, organization: &str, now: SystemTime) -> Result<Root, RootError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    if let Some(root) = read_folder(folder, now)? {
        return Ok(root);
    }
    let root = Root::generate(organization, now)?;
    // Written beside it and then put in its place as a whole, so that nobody sees a half and only one of several wins.
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = folder.with_file_name(format!(".{name}.{}", std::process::id()));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RootError::File { path, source }
    };
    std::fs::create_dir_all(&beside).map_err(failed(&beside))?;
    for (file, text) in [("ca-cert.pem", &root.certificate_pem), ("ca-key.pem", &root.key_pem)] {
        let path = beside.join(file);
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(failed(&path))?;
    }
    let Err(error) = std::fs::rename(&beside, folder) else { return Ok(root) };
    std::fs::remove_dir_all(&beside).map_err(failed(&beside))?;
    // Either another process was faster, or the folder holds other things.
    read_folder(folder, now)?.ok_or(RootError::File { path: folder.to_owned(), source: error })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// The files of a new authority under this root.
    pub(crate) fn intermediate(root: &Root) -> [(&'static str, String); 4] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = (now() + LIFETIME).into();
        let own = params.signed_by(&key, root.issuer()).unwrap().pem();
        [
            ("ca-cert.pem", own.clone()),
            ("ca-key.pem", key.serialize_pem()),
            ("cert-chain.pem", own),
            ("root-cert.pem", root.root_pem().to_owned()),
        ]
    }

    pub(crate) fn write(folder: &Path, parts: &[(&str, String)]) {
        for (name, text) in parts {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn a_folder_keeps_its_root() {
        let base = std::env::temp_dir().join(format!("citadel-root-{}", std::process::id()));
        std::fs::create_dir_all(base.join("empty")).unwrap();
        for folder in [base.join("absent"), base.join("empty")] {
            let first = in_folder(&folder, "cluster.local", now()).unwrap();
            let second = in_folder(&folder, "cluster.local", now()).unwrap();
            assert_eq!(first.root_pem(), second.root_pem());
        }
        let folder = base.join("absent");
        std::fs::write(folder.join("ca-key.pem"), Root::generate("x", now()).unwrap().key_pem).unwrap();
        let error = in_folder(&folder, "cluster.local", now()).unwrap_err();
        assert!(error.to_string().ends_with("ca-key.pem does not belong to ca-cert.pem"), "{error}");
        std::fs::remove_file(folder.join("ca-key.pem")).unwrap();
        assert!(matches!(in_folder(&folder, "x", now()), Err(RootError::Missing { part: "ca-key.pem", .. })));
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn an_authority_whose_certificates_nobody_would_accept_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (Root::generate("corporate", now()).unwrap(), Root::generate("corporate", now()).unwrap());
        let check = |parts: &[(&str, String)], at: SystemTime, says: Option<&str>| {
            write(folder.path(), parts);
            match (read_folder(folder.path(), at), says) {
                (Ok(found), None) => assert!(found.is_some()),
                (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
                (found, says) => panic!("{found:?}, expected {says:?}"),
            }
        };
        check(&intermediate(&root), now(), None);
        // the root beside it has the same name and another key
        let foreign = [("root-cert.pem", other.root_pem().to_owned())];
        check(&foreign, now(), Some("what it signs does not lead to its root"));
        check(&[("root-cert.pem", root.root_pem().to_owned())], now(), None);
        check(&[], now() + 2 * LIFETIME, Some("what it signs does not lead to its root"));
    }

    #[tokio::test]
    async fn copies_that_start_together_agree_on_one_root() {
        let api = crate::tests::FakeApi::default();
        let secrets = || Api::<Secret>::namespaced(api.client(), "istio-system");
        let (a, b, c) = (secrets(), secrets(), secrets());
        let (a, b, c) = tokio::join!(
            in_cluster(&a, "cluster.local", now()),
            in_cluster(&b, "cluster.local", now()),
            in_cluster(&c, "cluster.local", now())
        );
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        assert_eq!(a.root_pem(), b.root_pem());
        assert_eq!(b.root_pem(), c.root_pem());
    }

    #[tokio::test]
    async fn a_plugged_authority_is_used_with_its_chain() {
        let api = crate::tests::FakeApi::default();
        let secrets = Api::<Secret>::namespaced(api.client(), "istio-system");
        let root = Root::generate("corporate", now()).unwrap();
        let data = intermediate(&root).map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.name = Some(PLUGGED.into());
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        let plugged = in_cluster(&secrets, "cluster.local", now()).await.unwrap();
        assert_eq!(plugged.chain().len(), 2);
        assert_eq!(plugged.root_pem().trim(), root.root_pem().trim());
        assert_eq!(api.paths(), ["secrets/cacerts"], "no root of our own was made");
    }
}
