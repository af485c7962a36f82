//! What all handlers share: the store, the kinds, the keys, the node.
//!
//! Never here: handlers. Made by `server`, borrowed by every request.

use std::sync::{Arc, PoisonError, RwLock};

use crate::allocate::Allocator;
use crate::kinds::Registry;
use crate::server::Options;
use crate::store::Store;
use crate::{Dial, Kubelet};

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) allocator: Allocator,
    pub(crate) keys: crate::auth::Keys,
    kubelet: RwLock<Option<Arc<dyn Kubelet>>>,
    dial: RwLock<Option<Arc<dyn Dial>>>,
}

impl Core {
    pub(crate) fn new(options: Options, store: Arc<Store>, keys: crate::auth::Keys) -> Self {
        let allocator = Allocator::new(options.services, options.node_ports.clone(), options.first_node_port);
        let core = Self {
            options,
            store,
            registry: Registry::new(),
            allocator,
            keys,
            kubelet: RwLock::new(None),
            dial: RwLock::new(None),
        };
        core.reload_crds();
        for item in core.store.list("services", None).0 {
            core.allocator.adopt(&item.value());
        }
        core
    }

    /// Serves what the stored CRDs say.
    pub(crate) fn reload_crds(&self) {
        self.registry.reload(|| self.store.list("customresourcedefinitions.apiextensions.k8s.io", None).0);
    }

    pub(crate) fn set_kubelet(&self, kubelet: Arc<dyn Kubelet>) {
        *self.kubelet.write().unwrap_or_else(PoisonError::into_inner) = Some(kubelet);
    }

    pub(crate) fn kubelet(&self) -> Option<Arc<dyn Kubelet>> {
        self.kubelet.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_dial(&self, dial: Arc<dyn Dial>) {
        *self.dial.write().unwrap_or_else(PoisonError::into_inner) = Some(dial);
    }

    pub(crate) fn dial(&self) -> Option<Arc<dyn Dial>> {
        self.dial.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
