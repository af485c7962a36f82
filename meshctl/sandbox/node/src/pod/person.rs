//! Who a container's processes are, from its security context.
//!
//! Pure. Where the sandbox has one user only, user ids are not honoured, and network capabilities go to the sidecar.
//! Never here: changing identity (the keeper does). Called when a container starts.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod};

use crate::keeper::birth::Users;
use crate::keeper::wire::Person;

/// What a container has unless it says otherwise. NET_RAW is left out: with it a process could mark its packets as the
/// sidecar's; ping works without.
const DEFAULT: [&str; 12] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
];
/// The highest id that the sandbox maps.
const ID_MAX: i64 = 65_535;

/// Why a container cannot run as it wants.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PersonError {
    #[error("{field} {id} is beyond the ids of this sandbox (0 to 65535)")]
    Range { field: &'static str, id: i64 },
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
}

/// Who it is; `sidecar` says that the image is the proxy.
pub(crate) fn person(pod: &Pod, container: &Container, users: Users, sidecar: bool) -> Result<Person, PersonError> {
    let all = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |field, value: Option<i64>| match value {
        None => Ok(0),
        Some(id) if (0..=ID_MAX).contains(&id) => Ok(u32::try_from(id).unwrap_or_default()),
        Some(id) => Err(PersonError::Range { field, id }),
    };
    let uid = id("runAsUser", own.run_as_user.or(all.run_as_user))?;
    let gid = id("runAsGroup", own.run_as_group.or(all.run_as_group))?;
    if own.run_as_non_root.or(all.run_as_non_root) == Some(true)
        && uid == 0
        && own.run_as_user.or(all.run_as_user).is_some()
    {
        return Err(PersonError::Root);
    }
    let mut groups = Vec::new();
    for group in all.supplemental_groups.into_iter().flatten().chain(all.fs_group) {
        groups.push(id("fsGroup", Some(group))?);
    }
    let privileged = own.privileged == Some(true);
    let mut bounding = capabilities(own.capabilities.as_ref(), privileged);
    let mut ambient = Vec::new();
    let one = users == Users::One;
    if one && uid != 0 {
        bounding.clear();
    }
    if one && sidecar {
        // Only a mark tells the sidecar's packets from the application's here.
        let name = "CAP_NET_ADMIN".to_owned();
        if !bounding.contains(&name) {
            bounding.push(name.clone());
        }
        ambient.push(name);
    }
    let person = Person {
        uid: if one { 0 } else { uid },
        gid: if one { 0 } else { gid },
        groups: if one { Vec::new() } else { groups },
        bounding,
        ambient,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
    };
    Ok(person)
}

fn capabilities(given: Option<&Capabilities>, privileged: bool) -> Vec<String> {
    let full = |name: &str| {
        let name = name.to_ascii_uppercase();
        if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
    };
    let every = || caps::all().into_iter().map(|capability| capability.to_string()).collect::<Vec<_>>();
    if privileged {
        return every();
    }
    let (add, drop) = given.map_or((Vec::new(), Vec::new()), |given| {
        (given.add.clone().unwrap_or_default(), given.drop.clone().unwrap_or_default())
    });
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut kept: Vec<String> = if is_all(&add) { every() } else { DEFAULT.iter().map(|name| full(name)).collect() };
    if is_all(&drop) {
        kept.clear();
    }
    kept.retain(|name| !drop.iter().any(|dropped| full(dropped) == *name));
    for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")).map(|name| full(name)) {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases read better")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(context: Value, users: Users, sidecar: bool) -> Result<Person, PersonError> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "c", "securityContext": context}]}}))
        .unwrap();
        person(&pod, &pod.spec.as_ref().unwrap().containers[0], users, sidecar)
    }

    #[test]
    fn a_user_is_honoured_where_ids_are_mapped() {
        assert_eq!(check(json!({"runAsUser": 1337}), Users::High, true).unwrap().uid, 1337);
    }

    #[test]
    fn with_one_user_the_sidecar_may_mark_and_nothing_else() {
        let person = check(json!({"runAsUser": 1337, "capabilities": {"drop": ["ALL"]}}), Users::One, true).unwrap();
        assert_eq!(
            (person.uid, person.bounding, person.ambient),
            (0, vec!["CAP_NET_ADMIN".into()], vec!["CAP_NET_ADMIN".into()])
        );
    }

    #[test]
    fn an_application_cannot_mark() {
        let person = check(json!({}), Users::One, false).unwrap();
        assert!(!person.bounding.iter().any(|name| name.contains("NET_RAW") || name.contains("NET_ADMIN")));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let given = json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}});
        assert_eq!(check(given, Users::High, false).unwrap().bounding, ["CAP_NET_ADMIN"]);
    }

    #[test]
    fn an_id_beyond_the_map_is_refused() {
        let error = check(json!({"runAsUser": 100_000}), Users::High, false).unwrap_err();
        assert_eq!(error, PersonError::Range { field: "runAsUser", id: 100_000 });
    }
}
