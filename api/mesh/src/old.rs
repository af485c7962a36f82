//! Objects of Istio's old API groups: what to write instead of each, as objects of today's API.
//!
//! `authentication.istio.io`, `rbac.istio.io` and `config.istio.io` are served only so that whoever applies such an object is told.
//! Never here: storing them, or giving them an effect; what guards is never written wider than it was.
//! Called by pilot's webhook; the CRDs by the example `crds`.

mod authentication;
mod draft;
mod kinds;
mod mixer;
mod part;
mod rbac;
mod routing;

use std::fmt;

use api::note::{Notes, ObjectRef, Severity};
use serde_json::Value;

use self::{draft::Draft, kinds::Translation, part::Part};
pub use kinds::crds;

use crate::model::Catalog;

/// What to write instead of an old object.
#[derive(Debug, Clone, PartialEq)]
pub struct Instead {
    /// The old object.
    pub object: ObjectRef,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Today's objects that do its job; none where nothing is to be written.
    pub write: Vec<Value>,
    /// What to know (info), and what has no translation (warnings).
    pub notes: Notes,
}

/// What to write instead of this object; none where it is not of an old group.
///
/// Services of the catalog tell which Pods a service name meant; where one is not there, a note says what was assumed.
pub fn instead(object: &Value, catalog: &Catalog) -> Option<Instead> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let old = kinds::find(api_version, kind)?;
    let reference = ObjectRef::new(kind, text("/metadata/namespace"), text("/metadata/name"));
    let mut draft = Draft::new(catalog, reference.clone());
    let spec = Part::new("spec", object.get("spec").cloned().unwrap_or_default());
    match old.translation {
        Translation::Policy => authentication::policy(&mut draft, spec),
        Translation::Role => rbac::role(&mut draft, spec),
        Translation::Binding => rbac::binding(&mut draft, spec),
        Translation::RbacConfig => rbac::config(&mut draft, spec),
        Translation::RouteRule => routing::route_rule(&mut draft, spec),
        Translation::EgressRule => routing::egress_rule(&mut draft, spec),
        Translation::DestinationPolicy => routing::destination_policy(&mut draft, spec),
        Translation::Mixer(job) => mixer::job(&mut draft, job),
        Translation::MixerByName(field) => mixer::by_name(&mut draft, field, &spec),
    }
    let (write, notes) = draft.done();
    Some(Instead { object: reference, api_version: api_version.to_owned(), write, notes })
}

impl fmt::Display for Instead {
    /// YAML that can be applied as it is; what is to be known stands in its comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not read any more; ", self.object, self.api_version)?;
        f.write_str(match (self.write.is_empty(), self.notes.iter().any(|note| note.severity == Severity::Warn)) {
            (false, _) => "write instead:\n",
            (true, false) => "nothing is to be written instead\n",
            (true, true) => "no object of today says the same\n",
        })?;
        for note in &self.notes {
            let part = if note.path.is_empty() { String::new() } else { format!("{}: ", note.path) };
            let missing = if note.severity == Severity::Warn { "NOT TRANSLATED: " } else { "" };
            writeln!(f, "# {missing}{part}{}", note.text)?;
        }
        for object in &self.write {
            let yaml = serde_saphyr::to_string(object).map_err(|_| fmt::Error)?;
            write!(f, "---\n{}\n", yaml.trim_end())?;
        }
        Ok(())
    }
}
