//! The controllers against the server, in one process: from a Deployment to Pods that are ready, and away again.
//!
//! A node of a few lines stands in for the real one: it gives bound Pods an address and says that they are ready.
//! Never here: cases of single decisions (they are beside the controllers). Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "what is measured here is real time")]

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    PropagationPolicy,
};
use kube::runtime::watcher;
use kube::{Client, Resource};
use sandbox_server::{Options, Server, User, controllers};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const NODE: &str = "sandbox";

struct Cluster {
    client: Client,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

async fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::open(Options::new(folder.path())).unwrap();
    server.bootstrap().await.unwrap();
    let client = server.client(User::admin());
    let mut tasks = JoinSet::new();
    tasks.spawn(controllers::run(client.clone(), CancellationToken::new()));
    let node = json!({
        "metadata": { "name": NODE },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &from_value(node.clone()).unwrap()).await.unwrap();
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(node)).await.unwrap();
    tasks.spawn(kubelet(client.clone()));
    Cluster { client, _folder: folder, _tasks: tasks }
}

/// Runs Pods as far as the API can tell; those of a Job succeed at once.
async fn kubelet(client: Client) {
    let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()));
    let mut last = 0_u32;
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
        let name = pod.metadata.name.as_deref().unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            api.delete(name, &DeleteParams::default().grace_period(0)).await.ok();
            continue;
        }
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(NODE));
        let started = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        if bound && !started {
            last += 1;
            let once = pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("job-name"));
            let (phase, ready) = if once { ("Succeeded", "False") } else { ("Running", "True") };
            let patch = json!({ "status": {
                "phase": phase,
                "podIP": format!("198.18.{}.{}", last / 250, last % 250 + 1),
                "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": jiff::Timestamp::now() }],
            } });
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.ok();
        }
    }
}

impl Cluster {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        <K as Resource>::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), "shop")
    }

    async fn namespace(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let shop = from_value(json!({ "metadata": { "name": "shop" } })).unwrap();
        api.create(&PostParams::default(), &shop).await.unwrap();
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + serde::Serialize,
        <K as Resource>::DynamicType: Default,
    {
        self.api::<K>().create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
    }

    /// Waits until the objects of a kind are as told.
    async fn until<K>(&self, what: &str, holds: impl Fn(&[K]) -> bool)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
        <K as Resource>::DynamicType: Default,
    {
        let api = self.api::<K>();
        let waiting = async {
            let mut changes = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
            let mut listed = false;
            while let Some(change) = changes.next().await {
                listed |= matches!(change, Ok(watcher::Event::InitDone));
                if listed && holds(&api.list(&ListParams::default()).await.unwrap().items) {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
            let objects = api.list(&ListParams::default()).await.unwrap().items;
            panic!("not within 20 s: {what}\n{objects:#?}");
        }
    }
}

fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            },
        },
    })
}

/// What `kubectl rollout status` waits for.
fn rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let progress = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing").and_then(|c| c.reason.clone());
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && progress.as_deref() == Some("NewReplicaSetAvailable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_lives_as_kubectl_expects() {
    let cluster = cluster().await;
    cluster.namespace().await;
    rolls_out_and_is_exposed(&cluster).await;
    scales_changes_and_goes_back(&cluster).await;
    cluster
        .until::<Event>("events", |events| {
            let told = |event: &Event| (event.reason.clone().unwrap_or_default(), event.involved_object.kind.clone());
            let told: Vec<_> = events.iter().map(told).collect();
            [("ScalingReplicaSet", "Deployment"), ("SuccessfulCreate", "ReplicaSet"), ("Scheduled", "Pod")]
                .iter()
                .all(|(reason, kind)| told.contains(&((*reason).to_owned(), Some((*kind).to_owned()))))
        })
        .await;
    goes_with_all_it_made(&cluster).await;
}

fn addresses(slices: &[EndpointSlice]) -> usize {
    slices.iter().map(|slice| slice.endpoints.len()).sum()
}

async fn rolls_out_and_is_exposed(cluster: &Cluster) {
    let begun = std::time::Instant::now();
    cluster.create::<Deployment>(deployment(3, "web:1")).await;
    cluster
        .until::<Pod>("three Pods bound", |pods| {
            pods.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some()).count() == 3
        })
        .await;
    println!("from Deployment to Pods bound: {:?}", begun.elapsed());
    cluster.until::<Deployment>("rolled out", |all| all.iter().all(|d| rolled_out(d, 3))).await;
    let service = json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    });
    cluster.create::<Service>(service).await;
    cluster.until::<EndpointSlice>("three endpoints", |slices| addresses(slices) == 3).await;
    cluster
        .until::<Endpoints>("three addresses", |all| {
            let subsets = all.iter().flat_map(|e| e.subsets.iter().flatten());
            subsets.map(|subset| subset.addresses.iter().flatten().count()).sum::<usize>() == 3
        })
        .await;
}

async fn scales_changes_and_goes_back(cluster: &Cluster) {
    let api = cluster.api::<Deployment>();
    let params = PatchParams::default();
    api.patch("web", &params, &Patch::Merge(json!({ "spec": { "replicas": 5 } }))).await.unwrap();
    cluster.until::<Deployment>("scaled", |all| all.iter().all(|d| rolled_out(d, 5))).await;
    let image = |image: &str| {
        json!({ "spec": { "template": { "spec": { "containers": [
            { "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] },
        ] } } } })
    };
    api.patch("web", &params, &Patch::Merge(image("web:2"))).await.unwrap();
    cluster.until::<Deployment>("second version", |all| all.iter().all(|d| rolled_out(d, 5))).await;
    let revision = |set: &ReplicaSet| {
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        (annotations.get("deployment.kubernetes.io/revision").cloned(), set.spec.as_ref().unwrap().replicas)
    };
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    let mut known: Vec<_> = sets.iter().map(revision).collect();
    known.sort();
    assert_eq!(known, [(Some("1".into()), Some(0)), (Some("2".into()), Some(5))]);
    api.patch("web", &params, &Patch::Merge(image("web:1"))).await.unwrap();
    cluster.until::<Deployment>("back", |all| all.iter().all(|d| rolled_out(d, 5))).await;
    cluster
        .until::<ReplicaSet>("the old set is revision 3", |sets| {
            sets.len() == 2 && sets.iter().any(|set| revision(set) == (Some("3".into()), Some(5)))
        })
        .await;
    cluster.until::<EndpointSlice>("five endpoints", |slices| addresses(slices) == 5).await;
}

/// In the background.
async fn goes_with_all_it_made(cluster: &Cluster) {
    cluster.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until::<ReplicaSet>("no sets", |sets| sets.is_empty()).await;
    cluster.until::<Pod>("no Pods", |pods| pods.is_empty()).await;
    cluster.until::<EndpointSlice>("no endpoints", |slices| addresses(slices) == 0).await;
    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until::<EndpointSlice>("no slices", |slices| slices.is_empty()).await;
    cluster.until::<Endpoints>("no Endpoints", |all| all.is_empty()).await;
}

async fn delete_with(policy: PropagationPolicy) -> Cluster {
    let cluster = cluster().await;
    cluster.namespace().await;
    cluster.create::<Deployment>(deployment(2, "web:1")).await;
    cluster.until::<Deployment>("rolled out", |all| all.iter().all(|d| rolled_out(d, 2))).await;
    let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    cluster.api::<Deployment>().delete("web", &params).await.unwrap();
    cluster.until::<Deployment>("no Deployment", |all| all.is_empty()).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_takes_dependents_first() {
    let cluster = delete_with(PropagationPolicy::Foreground).await;
    assert!(cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = delete_with(PropagationPolicy::Orphan).await;
    let before = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].metadata.owner_references.clone().unwrap_or_default(), []);
    assert_eq!(cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len(), 2);
    cluster.create::<Deployment>(deployment(2, "web:1")).await;
    cluster.until::<Deployment>("adopted", |all| all.iter().all(|d| rolled_out(d, 2))).await;
    cluster
        .until::<ReplicaSet>("the same set", |sets| sets.len() == 1 && sets[0].metadata.uid == before[0].metadata.uid)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_goes_with_what_is_in_it() {
    let cluster = cluster().await;
    cluster.namespace().await;
    cluster
        .until::<ServiceAccount>("an account", |all| all.iter().any(|a| a.metadata.name.as_deref() == Some("default")))
        .await;
    cluster
        .until::<ConfigMap>("the certificate", |all| {
            all.iter()
                .any(|map| map.data.iter().flatten().any(|(name, text)| name == "ca.crt" && text.contains("BEGIN")))
        })
        .await;
    cluster.create::<Deployment>(deployment(2, "web:1")).await;
    cluster.until::<Deployment>("rolled out", |all| all.iter().all(|d| rolled_out(d, 2))).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let uid = namespaces.get("shop").await.unwrap().metadata.uid.unwrap();
    let begun = std::time::Instant::now();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::await_condition(
        namespaces.clone(),
        "shop",
        kube::runtime::wait::conditions::is_deleted(&uid),
    );
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the namespace stays").unwrap();
    println!("from namespace to nothing: {:?}", begun.elapsed());
    assert!(cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_crd_are_collected_and_do_not_outlive_it() {
    let cluster = cluster().await;
    cluster.namespace().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let definition = json!({
        "metadata": { "name": "widgets.test.example.com" },
        "spec": {
            "group": "test.example.com", "scope": "Namespaced",
            "names": { "kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            } } }],
        },
    });
    definitions.create(&PostParams::default(), &from_value(definition).unwrap()).await.unwrap();
    let established = kube::runtime::wait::conditions::is_crd_established();
    let waiting = kube::runtime::wait::await_condition(definitions.clone(), "widgets.test.example.com", established);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("never established").unwrap();
    let owner: ConfigMap = cluster.create(json!({ "metadata": { "name": "owner", "namespace": "shop" } })).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("test.example.com", "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "shop", &kind);
    let widget = |name: &str, owners: Value| -> DynamicObject {
        let meta = json!({ "name": name, "namespace": "shop", "ownerReferences": owners });
        from_value(json!({ "apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": meta })).unwrap()
    };
    let owned = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid }]);
    let made = widgets.create(&PostParams::default(), &widget("owned", owned)).await.unwrap();
    widgets.create(&PostParams::default(), &widget("free", json!([]))).await.unwrap();
    cluster.api::<ConfigMap>().delete("owner", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::conditions::is_deleted(made.metadata.uid.as_deref().unwrap());
    let waiting = kube::runtime::wait::await_condition(widgets.clone(), "owned", gone);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("not collected").unwrap();
    assert!(widgets.get("free").await.is_ok());

    // The kind goes with an object still in the namespace; the namespace goes all the same.
    definitions.delete("widgets.test.example.com", &DeleteParams::default()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let uid = namespaces.get("shop").await.unwrap().metadata.uid.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::conditions::is_deleted(&uid);
    let waiting = kube::runtime::wait::await_condition(namespaces.clone(), "shop", gone);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the namespace stays").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_to_its_end() {
    let cluster = cluster().await;
    cluster.namespace().await;
    let job = json!({
        "metadata": { "name": "once", "namespace": "shop" },
        "spec": { "completions": 3, "parallelism": 2, "template": {
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "x" }] },
        } },
    });
    cluster.create::<Job>(job).await;
    cluster
        .until::<Job>("complete", |jobs| {
            let status = jobs[0].status.clone().unwrap_or_default();
            status.succeeded == Some(3)
                && status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_services_with_slices_of_a_user_are_left_alone_and_cost_little() {
    let cluster = cluster().await;
    cluster.namespace().await;
    let begun = std::time::Instant::now();
    let (services, slices) = (cluster.api::<Service>(), cluster.api::<EndpointSlice>());
    let (services, slices) = (&services, &slices);
    futures::stream::iter(0..1000)
        .for_each_concurrent(16, |at| async move {
            let name = format!("s{at}");
            let service = json!({
                "metadata": { "name": name, "namespace": "shop" },
                "spec": { "ports": [{ "port": 80 }] },
            });
            let endpoint = |last: u32| json!({ "addresses": [format!("198.18.{last}.{}", at % 250)], "conditions": { "ready": true } });
            let slice = json!({
                "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": name } },
                "addressType": "IPv4", "ports": [{ "port": 8080 }],
                "endpoints": [endpoint(1), endpoint(2), endpoint(3)],
            });
            services.create(&PostParams::default(), &from_value(service).unwrap()).await.unwrap();
            slices.create(&PostParams::default(), &from_value(slice).unwrap()).await.unwrap();
        })
        .await;
    println!("2,000 objects made: {:?}", begun.elapsed());
    // a change after them is seen at once: nothing is piled up
    let begun = std::time::Instant::now();
    cluster.create::<Deployment>(deployment(1, "web:1")).await;
    cluster.until::<Deployment>("rolled out", |all| all.iter().all(|d| rolled_out(d, 1))).await;
    println!("a Deployment after them: {:?}", begun.elapsed());
    assert_eq!(slices.list(&ListParams::default()).await.unwrap().items.len(), 1000);
}
