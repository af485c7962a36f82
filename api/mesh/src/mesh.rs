//! What the objects of a mesh mean together, and what each proxy is told of it.
//!
//! `resolve` makes an immutable snapshot; `view` names what one proxy gets; `build` makes one resource, from the snapshot
//! and the key alone, so that proxies with equal keys share it.
//! Never here: parsing of single objects, wire formats. Called by pilot and `meshctl`.

mod key;

use std::{collections::BTreeSet, sync::Arc};

use api::{
    note::Notes,
    spec::{Node, Resource},
};

pub use key::{Key, KeySet, Keys, Scope};

use crate::model::{Catalog, ServiceId};

/// An immutable snapshot of the mesh; cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh {}

/// Makes a snapshot of all models, and says what does not fit together.
pub fn resolve(_catalog: &Catalog) -> (Mesh, Notes) {
    (Mesh {}, Notes::new())
}

impl Mesh {
    /// The same mesh with the addresses of these services taken anew: the short lane for endpoint changes.
    #[must_use]
    pub fn with_endpoints(&self, _catalog: &Catalog, _services: &BTreeSet<ServiceId>) -> Self {
        self.clone()
    }

    /// Hash of everything that `build` of this key depends on: equal versions build equal resources.
    pub fn version_of(&self, _key: &Key) -> u64 {
        0
    }
}

/// The inputs that proxies share: all proxies of one scope have the same outbound keys.
pub fn scope(_mesh: &Mesh, node: &Node) -> Scope {
    Scope::of(node)
}

/// The outbound keys of a scope; the costly part of a view, to be kept per scope by who has many proxies.
pub fn outbound(_mesh: &Mesh, _scope: &Scope) -> Arc<KeySet> {
    Arc::default()
}

/// Which resources this proxy gets, given the outbound keys of its scope.
pub fn view_with(_mesh: &Mesh, _node: &Node, outbound: Arc<KeySet>) -> Keys {
    Keys::new(outbound)
}

/// Which resources this proxy gets.
pub fn view(mesh: &Mesh, node: &Node) -> Keys {
    view_with(mesh, node, outbound(mesh, &scope(mesh, node)))
}

/// Makes the resource of a key; none where it is gone from the mesh.
pub fn build(_mesh: &Mesh, _key: &Key) -> Option<Resource> {
    None
}
