//! The columns of the built-in kinds: name, and 1 for those that only `-o wide` shows.
//!
//! Never here: cells (see `rows`). Called by `table`.

type Columns = &'static [(&'static str, i64)];

const WORKLOAD_WIDE: [(&str, i64); 3] = [("Containers", 1), ("Images", 1), ("Selector", 1)];

pub(super) fn columns(storage: &str) -> Columns {
    match storage {
        "pods" => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1),
        ],
        "services" => &[
            ("Name", 0),
            ("Type", 0),
            ("Cluster-IP", 0),
            ("External-IP", 0),
            ("Port(s)", 0),
            ("Age", 0),
            ("Selector", 1),
        ],
        "deployments.apps" => {
            const ALL: [(&str, i64); 8] = [
                ("Name", 0),
                ("Ready", 0),
                ("Up-to-date", 0),
                ("Available", 0),
                ("Age", 0),
                WORKLOAD_WIDE[0],
                WORKLOAD_WIDE[1],
                WORKLOAD_WIDE[2],
            ];
            &ALL
        }
        "replicasets.apps" => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "daemonsets.apps" => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Node Selector", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "statefulsets.apps" => &[("Name", 0), ("Ready", 0), ("Age", 0), ("Containers", 1), ("Images", 1)],
        "jobs.batch" => &[
            ("Name", 0),
            ("Status", 0),
            ("Completions", 0),
            ("Duration", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "cronjobs.batch" => &[
            ("Name", 0),
            ("Schedule", 0),
            ("Timezone", 0),
            ("Suspend", 0),
            ("Active", 0),
            ("Last Schedule", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "namespaces" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        "nodes" => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        "configmaps" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "secrets" => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        "serviceaccounts" => &[("Name", 0), ("Secrets", 0), ("Age", 0)],
        "endpoints" => &[("Name", 0), ("Endpoints", 0), ("Age", 0)],
        "endpointslices.discovery.k8s.io" => {
            &[("Name", 0), ("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)]
        }
        "events" => &[
            ("Last Seen", 0),
            ("Type", 0),
            ("Reason", 0),
            ("Object", 0),
            ("Subobject", 1),
            ("Source", 1),
            ("Message", 0),
            ("First Seen", 1),
            ("Count", 1),
            ("Name", 1),
        ],
        "customresourcedefinitions.apiextensions.k8s.io" => &[("Name", 0), ("Created At", 0)],
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => &[("Name", 0), ("Webhooks", 0), ("Age", 0)],
        "ingresses.networking.k8s.io" => {
            &[("Name", 0), ("Class", 0), ("Hosts", 0), ("Address", 0), ("Ports", 0), ("Age", 0)]
        }
        "ingressclasses.networking.k8s.io" => &[("Name", 0), ("Controller", 0), ("Parameters", 0), ("Age", 0)],
        "leases.coordination.k8s.io" => &[("Name", 0), ("Holder", 0), ("Age", 0)],
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            &[("Name", 0), ("Created At", 0)]
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            &[("Name", 0), ("Role", 0), ("Age", 0), ("Users", 1), ("Groups", 1), ("ServiceAccounts", 1)]
        }
        "horizontalpodautoscalers.autoscaling" => &[
            ("Name", 0),
            ("Reference", 0),
            ("Targets", 0),
            ("MinPods", 0),
            ("MaxPods", 0),
            ("Replicas", 0),
            ("Age", 0),
        ],
        "poddisruptionbudgets.policy" => {
            &[("Name", 0), ("Min Available", 0), ("Max Unavailable", 0), ("Allowed Disruptions", 0), ("Age", 0)]
        }
        "networkpolicies.networking.k8s.io" => &[("Name", 0), ("Pod-Selector", 0), ("Age", 0)],
        "priorityclasses.scheduling.k8s.io" => {
            &[("Name", 0), ("Value", 0), ("Global-Default", 0), ("Age", 0), ("PreemptionPolicy", 0)]
        }
        "storageclasses.storage.k8s.io" => &[
            ("Name", 0),
            ("Provisioner", 0),
            ("ReclaimPolicy", 0),
            ("VolumeBindingMode", 0),
            ("AllowVolumeExpansion", 0),
            ("Age", 0),
        ],
        "persistentvolumeclaims" => &[
            ("Name", 0),
            ("Status", 0),
            ("Volume", 0),
            ("Capacity", 0),
            ("Access Modes", 0),
            ("StorageClass", 0),
            ("Age", 0),
        ],
        "persistentvolumes" => &[
            ("Name", 0),
            ("Capacity", 0),
            ("Access Modes", 0),
            ("Reclaim Policy", 0),
            ("Status", 0),
            ("Claim", 0),
            ("StorageClass", 0),
            ("Reason", 0),
            ("Age", 0),
        ],
        _ => &[("Name", 0), ("Age", 0)],
    }
}
