//! The record of who wrote which field (`metadata.managedFields`).
//!
//! Updates own what they change. Never here: conflicts (see `apply`). Called by create, update and `apply`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::{self, FieldSet};
use crate::kinds::{Kind, Model};
use crate::limits::UPDATERS_MAX;
use crate::schema::shape::Shape;
use crate::{clock, object};

/// One line of the record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) applies: bool,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) set: FieldSet,
}

impl Entry {
    /// The manager as conflicts name it.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// The shape of a kind's objects.
pub(crate) fn shape(kind: &Kind) -> Shape<'_> {
    match &kind.model {
        Model::BuiltIn(root) => Shape::Object(root),
        Model::Custom(custom) => Shape::CustomRoot(&custom.schema),
    }
}

pub(crate) fn read(value: &Value) -> Vec<Entry> {
    object::items(value, "/metadata/managedFields")
        .iter()
        .map(|entry| Entry {
            manager: object::text(entry, "/manager").to_owned(),
            applies: object::text(entry, "/operation") == "Apply",
            api_version: object::text(entry, "/apiVersion").to_owned(),
            subresource: object::text(entry, "/subresource").to_owned(),
            time: object::text(entry, "/time").to_owned(),
            set: FieldSet::parse_root(entry.get("fieldsV1").unwrap_or(&Value::Null)),
        })
        .collect()
}

pub(crate) fn write(value: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.set.is_empty() || entry.applies);
    let updaters = entries.iter().filter(|entry| !entry.applies && entry.subresource.is_empty()).count();
    if updaters > UPDATERS_MAX {
        fold_oldest(&mut entries, updaters - UPDATERS_MAX + 1);
    }
    entries.sort_by(|a, b| (!a.applies, &a.time, &a.manager).cmp(&(!b.applies, &b.time, &b.manager)));
    let list: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let mut line = json!({
                "manager": entry.manager,
                "operation": if entry.applies { "Apply" } else { "Update" },
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.set.write(),
            });
            if !entry.subresource.is_empty() {
                object::object(&mut line).insert("subresource".to_owned(), entry.subresource.into());
            }
            line
        })
        .collect();
    let metadata = object::metadata(value);
    if list.is_empty() {
        object::take(metadata, "managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), list.into());
    }
}

fn fold_oldest(entries: &mut Vec<Entry>, count: usize) {
    entries.sort_by(|a, b| a.time.cmp(&b.time));
    let mut folded: Option<Entry> = None;
    let mut left = count;
    entries.retain(|entry| {
        if entry.applies || !entry.subresource.is_empty() || left == 0 {
            return true;
        }
        left -= 1;
        let into = folded.get_or_insert_with(|| Entry { manager: "ancient-changes".to_owned(), ..entry.clone() });
        into.set.union(&entry.set);
        into.time.clone_from(&entry.time);
        false
    });
    entries.extend(folded);
}

/// What a client says about the record does not count.
pub(crate) fn drop_incoming(value: &mut Value) {
    object::take(object::metadata(value), "managedFields");
}

/// Gives what has changed to the manager and takes it from all others.
pub(crate) fn record(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: Timestamp,
) {
    let empty = Value::Object(serde_json::Map::new());
    let (mut changed, mut gone) = (FieldSet::default(), FieldSet::default());
    fields::compare(shape(kind), Some(old.unwrap_or(&empty)), Some(new), &mut changed, &mut gone);
    fields::strip(&mut changed);
    fields::strip(&mut gone);
    let mut entries = old.map(read).unwrap_or_default();
    if changed.is_empty() && gone.is_empty() {
        write(new, entries);
        return;
    }
    let api_version = kind.api_version();
    for entry in &mut entries {
        entry.set.subtract(&gone);
        entry.set.subtract(&changed);
    }
    let mine = entries.iter_mut().find(|entry| {
        !entry.applies
            && entry.manager == manager
            && entry.api_version == api_version
            && entry.subresource == subresource
    });
    let time = clock::seconds(now);
    match mine {
        Some(entry) => {
            entry.set.union(&changed);
            entry.time = time;
        }
        None if changed.is_empty() => {}
        None => entries.push(Entry {
            manager: manager.to_owned(),
            applies: false,
            api_version,
            subresource: subresource.to_owned(),
            time,
            set: changed,
        }),
    }
    write(new, entries);
}

/// Whether two versions are the same but for the times in the record.
pub(crate) fn only_times_differ(old: &Value, new: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        let record: Vec<(String, bool, String, String, FieldSet)> = read(&value)
            .into_iter()
            .map(|entry| (entry.manager, entry.applies, entry.api_version, entry.subresource, entry.set))
            .collect();
        drop_incoming(&mut value);
        (value, record)
    };
    bare(old) == bare(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::built_in;

    #[test]
    fn an_update_takes_what_it_changes() {
        let kind = built_in().iter().find(|kind| kind.is("", "services")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut first = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}});
        record(kind, None, &mut first, "one", "", now);
        assert_eq!(
            read(&first)[0].set.write(),
            json!({
                "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
                "f:spec": {"f:type": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}},
            })
        );
        let mut second = first.clone();
        second["metadata"]["labels"]["x"] = "2".into();
        record(kind, Some(&first), &mut second, "two", "", now);
        let entries = read(&second);
        assert_eq!(entries.len(), 2);
        let two = entries.iter().find(|entry| entry.manager == "two").unwrap();
        assert_eq!(two.set.write(), json!({"f:metadata": {"f:labels": {"f:x": {}}}}));
    }
}
