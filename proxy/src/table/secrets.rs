//! Certificates and roots that are not our own: from secrets that pilot sends, and from files in the pod.
//!
//! Each has a slot that outlives tables; a new certificate goes into the slot, and the next handshake uses it.
//! Never here: our own identity. Asked when tables are built.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use api::spec::{Secret, SecretValue};
use api_rt::tls::{Certificate, CertificateSlot, Roots, RootsSlot};
use hashbrown::HashMap;

use crate::upstream::tls::{ClientTlsError, Secrets};

#[derive(Debug, Default)]
struct Slots {
    certificates: HashMap<String, CertificateSlot>,
    roots: HashMap<String, RootsSlot>,
    /// The secrets as they were when their slots were filled.
    filled: HashMap<String, Arc<Secret>>,
    machine: Option<RootsSlot>,
}

/// Slots by name.
#[derive(Debug, Default)]
pub(crate) struct SecretStore(Mutex<Slots>);

/// Where machines keep the roots they trust.
const MACHINE_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

impl SecretStore {
    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the slots of secrets that have come or changed.
    pub(super) fn update(&self, secrets: &BTreeMap<String, Arc<Secret>>, bad: &mut impl FnMut(String, String)) {
        let mut slots = self.slots();
        let slots = &mut *slots;
        for (name, secret) in secrets {
            if slots.filled.get(name).is_some_and(|old| Arc::ptr_eq(old, secret) || old == secret) {
                continue;
            }
            let filled = match &secret.value {
                SecretValue::Certificate { chain, key } => {
                    Certificate::from_pem(&String::from_utf8_lossy(chain), &String::from_utf8_lossy(key))
                        .map(|certificate| slots.certificates.entry(name.clone()).or_default().put(certificate))
                }
                SecretValue::Roots(pem) => {
                    Roots::from_pem(pem).map(|roots| slots.roots.entry(name.clone()).or_default().put(roots))
                }
            };
            match filled {
                Ok(()) => drop(slots.filled.insert(name.clone(), Arc::clone(secret))),
                Err(error) => bad(name.clone(), error.to_string()),
            }
        }
        slots.filled.retain(|name, _| secrets.contains_key(name));
    }

    fn read(path: &str) -> Result<String, ClientTlsError> {
        std::fs::read_to_string(path)
            .map_err(|error| ClientTlsError::File { path: path.to_owned(), reason: error.to_string() })
    }
}

impl Secrets for SecretStore {
    fn certificate(&self, name: &str) -> Option<CertificateSlot> {
        Some(self.slots().certificates.entry(name.to_owned()).or_default().clone())
    }

    fn roots(&self, name: &str) -> Option<RootsSlot> {
        Some(self.slots().roots.entry(name.to_owned()).or_default().clone())
    }

    fn certificate_files(&self, chain: &str, key: &str) -> Result<CertificateSlot, ClientTlsError> {
        let certificate = Certificate::from_pem(&Self::read(chain)?, &Self::read(key)?)
            .map_err(|error| ClientTlsError::File { path: chain.to_owned(), reason: error.to_string() })?;
        let slot = self.slots().certificates.entry(format!("file:{chain}")).or_default().clone();
        slot.put(certificate);
        Ok(slot)
    }

    fn roots_file(&self, path: &str) -> Result<RootsSlot, ClientTlsError> {
        let roots = Roots::from_pem(Self::read(path)?.as_bytes())
            .map_err(|error| ClientTlsError::File { path: path.to_owned(), reason: error.to_string() })?;
        let slot = self.slots().roots.entry(format!("file:{path}")).or_default().clone();
        slot.put(roots);
        Ok(slot)
    }

    fn machine_roots(&self) -> Result<RootsSlot, ClientTlsError> {
        if let Some(known) = &self.slots().machine {
            return Ok(known.clone());
        }
        let path = MACHINE_ROOTS.iter().find(|path| std::path::Path::new(path).exists()).unwrap_or(&MACHINE_ROOTS[0]);
        let slot = self.roots_file(path)?;
        self.slots().machine = Some(slot.clone());
        Ok(slot)
    }
}
