//! Whether this program may be sent work, and what it still waits for.
//!
//! Everything that must happen first holds a [`Gate`]; the program is ready when every gate was opened on purpose.
//! Never here: HTTP. A dropped gate stays shut. Shown by `admin` at `/ready`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

#[derive(Debug, Default)]
struct Shut {
    next: u64,
    reasons: BTreeMap<u64, String>,
}

/// The list of what is still waited for; clones share it.
#[derive(Debug, Clone)]
pub struct Readiness {
    shut: Arc<Mutex<Shut>>,
    changed: watch::Sender<bool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { shut: Arc::default(), changed: watch::Sender::new(true) }
    }
}

impl Readiness {
    /// Ready, until something is named that must come first.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shut> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Shut)) {
        let ready = {
            let mut shut = self.lock();
            change(&mut shut);
            shut.reasons.is_empty()
        };
        self.changed.send_replace(ready);
    }

    /// Names something that must come first, and shuts the program until it has.
    pub fn blocked_by(&self, what: impl Into<String>) -> Gate {
        let mut id = 0;
        self.update(|shut| {
            id = shut.next;
            shut.next += 1;
            shut.reasons.insert(id, what.into());
        });
        Gate { of: self.clone(), id }
    }

    /// Whether nothing is waited for.
    pub fn is_ready(&self) -> bool {
        *self.changed.borrow()
    }

    /// What is waited for, oldest first.
    pub fn waiting_for(&self) -> Vec<String> {
        self.lock().reasons.values().cloned().collect()
    }

    /// Waits until nothing is waited for.
    pub async fn wait(&self) {
        let mut changes = self.changed.subscribe();
        // The sender lives in `self`, so this cannot fail while we are here.
        let _ready = changes.wait_for(|ready| *ready).await.is_ok();
    }
}

/// One thing that must come first. Only [`Gate::open`] opens it.
#[derive(Debug)]
#[must_use = "a gate that is dropped stays shut"]
pub struct Gate {
    of: Readiness,
    id: u64,
}

impl Gate {
    /// It has happened.
    pub fn open(self) {
        self.of.update(|shut| {
            shut.reasons.remove(&self.id);
        });
    }

    /// Says more exactly what is waited for, for example the last error.
    pub fn because(&self, reason: impl Into<String>) {
        self.of.update(|shut| {
            shut.reasons.insert(self.id, reason.into());
        });
    }
}

/// A gate that one task explains and another opens; clones are the same gate.
#[derive(Debug, Clone)]
pub struct SharedGate(Arc<Mutex<Option<Gate>>>);

impl Gate {
    /// The gate for several tasks.
    pub fn shared(self) -> SharedGate {
        SharedGate(Arc::new(Mutex::new(Some(self))))
    }
}

impl SharedGate {
    fn gate(&self) -> MutexGuard<'_, Option<Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says more exactly what is waited for, while it is.
    pub fn because(&self, reason: impl Into<String>) {
        if let Some(gate) = &*self.gate() {
            gate.because(reason);
        }
    }

    /// It has happened; what is said of it afterwards changes nothing.
    pub fn open(&self) {
        if let Some(gate) = self.gate().take() {
            gate.open();
        }
    }
}

/// Something that may come and go, such as a connection.
#[derive(Debug)]
pub struct Switch {
    of: Readiness,
    id: u64,
}

impl Readiness {
    /// Something that may come and go; absent at first.
    pub fn switch(&self, what: impl Into<String>) -> Switch {
        let gate = self.blocked_by(what);
        Switch { id: gate.id, of: gate.of }
    }
}

impl Switch {
    /// It is there.
    pub fn on(&self) {
        self.of.update(|shut| {
            shut.reasons.remove(&self.id);
        });
    }

    /// It is not, because of this.
    pub fn off(&self, reason: impl Into<String>) {
        self.of.update(|shut| {
            shut.reasons.insert(self.id, reason.into());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_opening_every_gate_makes_ready() {
        let ready = Readiness::new();
        let first = ready.blocked_by("certificate");
        let second = ready.blocked_by("first configuration");
        first.open();
        second.because("first configuration: connection refused");
        assert_eq!(ready.waiting_for(), ["first configuration: connection refused"]);
        drop(second);
        assert!(!ready.is_ready());
    }

    #[test]
    fn an_open_gate_is_not_shut_by_who_explains_it() {
        let ready = Readiness::new();
        let gate = ready.blocked_by("certificate").shared();
        let other = gate.clone();
        other.because("certificate: refused");
        assert_eq!(ready.waiting_for(), ["certificate: refused"]);
        gate.open();
        other.because("certificate: refused again");
        assert!(ready.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_gate_opens() {
        let ready = Readiness::new();
        let gate = ready.blocked_by("certificate");
        let waiter = ready.clone();
        let waiting = tokio::spawn(async move { waiter.wait().await });
        gate.open();
        waiting.await.unwrap();
        assert!(ready.is_ready());
    }
}
