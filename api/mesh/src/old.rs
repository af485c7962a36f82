//! Objects of Istio's old API groups: what to write instead of each, as objects of today's API.
//!
//! `authentication.istio.io`, `rbac.istio.io` and `config.istio.io` are served only so that whoever applies such an object is told.
//! What is written is judged as admission judges it: an object that is refused today is named as such.
//! Never here: storing them, or giving them an effect; what guards is never written wider than it was.
//! Called by pilot's webhook and for files of a folder; the CRDs by the example `crds`.

mod authentication;
mod draft;
mod kinds;
mod mixer;
mod part;
mod rbac;
mod routing;

use std::fmt;

use api::note::{Note, Notes, ObjectRef, Severity};
use serde_json::Value;

use self::{draft::Draft, kinds::Translation, part::Part};
pub use kinds::crds;

use crate::{
    model::{Catalog, Settings, parse},
    object::{Strictness, from_json},
};

/// What to write instead of an old object.
#[derive(Debug, Clone, PartialEq)]
pub struct Instead {
    /// The old object.
    pub object: ObjectRef,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Today's objects that do its job; none where nothing is to be written.
    pub write: Vec<Written>,
    /// What to know (info), and what has no translation (warnings).
    pub notes: Notes,
}

/// An object of today that does an old one's job, or a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The object.
    pub value: Value,
    /// Why it is refused today, as the admission webhook says it; empty: it is taken.
    pub refused: Vec<Note>,
}

impl Written {
    /// Judges an object as admission does.
    fn judge(value: Value, settings: &Settings) -> Self {
        let mut notes = Notes::new();
        match from_json(value.clone(), Strictness::Refuse) {
            Ok((stored, _)) => drop(parse(&stored, settings, &mut notes)),
            Err(error) => notes.error(&reference(&value), "", error.to_string()),
        }
        let refused = notes.iter().filter(|note| note.severity == Severity::Error).cloned().collect();
        Self { value, refused }
    }
}

fn reference(object: &Value) -> ObjectRef {
    ObjectRef::new(text(object, "/kind"), text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an old kind lives in namespaces; none where it is not of an old group.
pub fn namespaced(api_version: &str, kind: &str) -> Option<bool> {
    kinds::find(api_version, kind).map(kinds::OldKind::namespaced)
}

/// What to write instead of this object; none where it is not of an old group.
///
/// Services of the catalog tell which Pods a service name meant; where one is not there, a note says what was assumed.
pub fn instead(object: &Value, catalog: &Catalog) -> Option<Instead> {
    let api_version = text(object, "/apiVersion");
    let old = kinds::find(api_version, text(object, "/kind"))?;
    let reference = reference(object);
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
    let write = write.into_iter().map(|value| Written::judge(value, catalog.settings())).collect();
    Some(Instead { object: reference, api_version: api_version.to_owned(), write, notes })
}

impl fmt::Display for Instead {
    /// YAML that can be applied as it is, but for what is refused today; what is to be known stands in its comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not read any more; ", self.object, self.api_version)?;
        let refused = self.write.iter().filter(|written| !written.refused.is_empty()).count();
        match (self.write.len(), self.notes.iter().any(|note| note.severity == Severity::Warn)) {
            (0, false) => f.write_str("nothing is to be written instead\n")?,
            (0, true) => f.write_str("no object of today says the same\n")?,
            (all, _) if refused == 0 || all == 0 => f.write_str("write instead:\n")?,
            (all, _) => writeln!(f, "write instead, but {refused} of these {all} are refused today:")?,
        }
        for note in &self.notes {
            let part = if note.path.is_empty() { String::new() } else { format!("{}: ", note.path) };
            let missing = if note.severity == Severity::Warn { "NOT TRANSLATED: " } else { "" };
            writeln!(f, "# {missing}{part}{}", note.text)?;
        }
        for Written { value, refused } in &self.write {
            f.write_str("---\n")?;
            for note in refused {
                let part = if note.path.is_empty() { String::new() } else { format!("{}: ", note.path) };
                writeln!(f, "# REFUSED TODAY: {part}{}", note.text)?;
            }
            if !refused.is_empty() {
                f.write_str("# It guards nothing until a version takes it; until then keep what it is for closed in another way.\n")?;
            }
            let yaml = serde_saphyr::to_string(value).map_err(|_| fmt::Error)?;
            writeln!(f, "{}", yaml.trim_end())?;
        }
        Ok(())
    }
}
