//! The old kinds, and the CustomResourceDefinitions that let `kubectl apply` reach the webhook which tells about them.
//!
//! Their schema is open: nothing of them is read but to translate it.
//! Never here: a translation. The CRDs are printed by the example `crds` into `deploy/crds/old.yaml`.

use serde_json::{Value, json};

use super::mixer::Job;

/// How an old kind is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Translation {
    Policy,
    Role,
    Binding,
    RbacConfig,
    RouteRule,
    EgressRule,
    DestinationPolicy,
    /// A kind of Mixer with one job.
    Mixer(Job),
    /// A kind of Mixer whose job is told by the adapter or template in that field.
    MixerByName(&'static str),
}

/// An old kind.
pub(super) struct OldKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    cluster: bool,
    pub(super) translation: Translation,
}

impl OldKind {
    /// Whether it lives in namespaces.
    pub(super) fn namespaced(&self) -> bool {
        !self.cluster
    }
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    translation: Translation,
) -> OldKind {
    OldKind { group, version, kind, plural, cluster: false, translation }
}

const fn mixer(kind: &'static str, plural: &'static str, job: Job) -> OldKind {
    namespaced(CONFIG, "v1alpha2", kind, plural, Translation::Mixer(job))
}

const fn mixer_by_name(kind: &'static str, plural: &'static str, field: &'static str) -> OldKind {
    namespaced(CONFIG, "v1alpha2", kind, plural, Translation::MixerByName(field))
}

const AUTHENTICATION: &str = "authentication.istio.io";
const CONFIG: &str = "config.istio.io";
const RBAC: &str = "rbac.istio.io";

/// All of them, as Istio 0.8 to 1.4 had them.
const KINDS: &[OldKind] = &[
    OldKind {
        cluster: true,
        ..namespaced(AUTHENTICATION, "v1alpha1", "MeshPolicy", "meshpolicies", Translation::Policy)
    },
    namespaced(AUTHENTICATION, "v1alpha1", "Policy", "policies", Translation::Policy),
    OldKind {
        cluster: true,
        ..namespaced(RBAC, "v1alpha1", "ClusterRbacConfig", "clusterrbacconfigs", Translation::RbacConfig)
    },
    namespaced(RBAC, "v1alpha1", "RbacConfig", "rbacconfigs", Translation::RbacConfig),
    namespaced(RBAC, "v1alpha1", "ServiceRole", "serviceroles", Translation::Role),
    namespaced(RBAC, "v1alpha1", "ServiceRoleBinding", "servicerolebindings", Translation::Binding),
    namespaced(CONFIG, "v1alpha2", "RouteRule", "routerules", Translation::RouteRule),
    namespaced(CONFIG, "v1alpha2", "EgressRule", "egressrules", Translation::EgressRule),
    namespaced(CONFIG, "v1alpha2", "DestinationPolicy", "destinationpolicies", Translation::DestinationPolicy),
    mixer_by_name("rule", "rules", "actions"),
    mixer_by_name("handler", "handlers", "compiledAdapter"),
    mixer_by_name("instance", "instances", "compiledTemplate"),
    mixer("adapter", "adapters", Job::Plugin),
    mixer("template", "templates", Job::Plugin),
    mixer("attributemanifest", "attributemanifests", Job::Attributes),
    mixer("HTTPAPISpec", "httpapispecs", Job::ApiKeys),
    mixer("HTTPAPISpecBinding", "httpapispecbindings", Job::ApiKeys),
    mixer("QuotaSpec", "quotaspecs", Job::Quota),
    mixer("QuotaSpecBinding", "quotaspecbindings", Job::Quota),
    mixer("apikey", "apikeys", Job::ApiKeys),
    mixer("authorization", "authorizations", Job::Ask),
    mixer("bypass", "bypasses", Job::Plugin),
    mixer("checknothing", "checknothings", Job::Deny),
    mixer("circonus", "circonuses", Job::Metrics),
    mixer("cloudwatch", "cloudwatches", Job::Metrics),
    mixer("denier", "deniers", Job::Deny),
    mixer("dogstatsd", "dogstatsds", Job::Metrics),
    mixer("edge", "edges", Job::Metrics),
    mixer("fluentd", "fluentds", Job::Logs),
    mixer("kubernetes", "kuberneteses", Job::Attributes),
    mixer("kubernetesenv", "kubernetesenvs", Job::Attributes),
    mixer("listchecker", "listcheckers", Job::Deny),
    mixer("listentry", "listentries", Job::Deny),
    mixer("logentry", "logentries", Job::Logs),
    mixer("memquota", "memquotas", Job::Quota),
    mixer("metric", "metrics", Job::Metrics),
    mixer("noop", "noops", Job::Attributes),
    mixer("opa", "opas", Job::Ask),
    mixer("prometheus", "prometheuses", Job::Metrics),
    mixer("quota", "quotas", Job::Quota),
    mixer("rbac", "rbacs", Job::Ask),
    mixer("redisquota", "redisquotas", Job::Quota),
    mixer("reportnothing", "reportnothings", Job::Attributes),
    mixer("servicecontrol", "servicecontrols", Job::ApiKeys),
    mixer("servicecontrolreport", "servicecontrolreports", Job::Metrics),
    mixer("signalfx", "signalfxs", Job::Metrics),
    mixer("solarwinds", "solarwindses", Job::Metrics),
    mixer("stackdriver", "stackdrivers", Job::Metrics),
    mixer("statsd", "statsds", Job::Metrics),
    mixer("stdio", "stdios", Job::Logs),
    mixer("tracespan", "tracespans", Job::Traces),
    mixer("zipkin", "zipkins", Job::Traces),
];

/// The old kind of that `apiVersion` and name.
pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static OldKind> {
    KINDS.iter().find(|old| old.kind == kind && api_version.split_once('/') == Some((old.group, old.version)))
}

/// The job of an adapter or template of Mixer.
pub(super) fn job_of(name: &str) -> Option<Job> {
    KINDS.iter().find(|old| old.kind == name).and_then(|old| match old.translation {
        Translation::Mixer(job) => Some(job),
        Translation::Policy
        | Translation::Role
        | Translation::Binding
        | Translation::RbacConfig
        | Translation::RouteRule
        | Translation::EgressRule
        | Translation::DestinationPolicy
        | Translation::MixerByName(_) => None,
    })
}

/// One CustomResourceDefinition for each old kind.
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

fn crd(old: &OldKind) -> Value {
    let OldKind { group, version, kind, plural, cluster, translation: _ } = old;
    let singular = kind.to_lowercase();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": { "app": "istio-pilot", "release": "istio" },
            "annotations": { "helm.sh/resource-policy": "keep" },
        },
        "spec": {
            "group": group,
            "names": { "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular },
            "scope": if *cluster { "Cluster" } else { "Namespaced" },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "deprecated": true,
                "deprecationWarning": format!("{group}/{version} {kind} is not read any more: applying one tells what to write instead"),
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}
