//! What is known of one Pod: the object, its containers' cells, and that something changed.
//!
//! Shared by the Pod's tasks; the status task waits on it. Never here: deciding anything.
//! Made by `worker`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::watch;

use super::status::{Cell, Cells, Circumstances};

struct Inner {
    pod: Arc<Pod>,
    cells: Cells,
    around: Circumstances,
}

/// One Pod's board.
pub(crate) struct Board {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    uid: String,
    title: String,
}

impl Board {
    pub(crate) fn new(pod: Arc<Pod>, cells: Cells, around: Circumstances) -> Self {
        let meta = &pod.metadata;
        let uid = meta.uid.clone().unwrap_or_default();
        let title = format!(
            "{}_{}({uid})",
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default()
        );
        Self { inner: Mutex::new(Inner { pod, cells, around }), changed: watch::Sender::new(0), uid, title }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// `name_namespace(uid)`, as messages have it.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.lock().pod)
    }

    /// The object has changed in the API.
    pub(crate) fn set_pod(&self, pod: Arc<Pod>) {
        self.lock().pod = pod;
        self.touch();
    }

    pub(crate) fn cell(&self, name: &str, change: impl FnOnce(&mut Cell)) {
        {
            let mut inner = self.lock();
            let Some(cell) = inner.cells.get_mut(name) else { return };
            let before = cell.clone();
            change(cell);
            if *cell == before {
                return;
            }
        }
        self.touch();
    }

    pub(crate) fn read<T>(&self, name: &str, look: impl FnOnce(&Cell) -> T) -> Option<T> {
        self.lock().cells.get(name).map(look)
    }

    pub(crate) fn around(&self, change: impl FnOnce(&mut Circumstances)) {
        change(&mut self.lock().around);
        self.touch();
    }

    /// All of it, for the status.
    pub(crate) fn look(&self) -> (Arc<Pod>, Cells, Circumstances) {
        let inner = self.lock();
        (Arc::clone(&inner.pod), inner.cells.clone(), inner.around.clone())
    }

    /// Wakes at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The Pod as events name it.
    pub(crate) fn reference(&self, field: Option<String>) -> ObjectReference {
        let pod = self.pod();
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: field,
        }
    }
}
