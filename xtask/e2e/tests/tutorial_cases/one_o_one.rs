//! "Istio (Service Mesh) 101": helloworld v1 and v2, two callers, routing by the caller's labels.
//!
//! Never here: how steps run. Called by the suite `tutorials`.

use anyhow::Result;

use super::{
    Because::{Endless, KubectlSyntax, NameOfTheDay, OtherPods},
    Step::{Instead, Reader, Shows, ShowsNot, Verbatim},
    Tutorial, fenced,
};

pub(crate) const TUTORIAL: Tutorial = Tutorial {
    name: "one-o-one",
    file: "istio-service-mesh-101.txt",
    files: &[
        ("samples/helloworld/custom_helloworld.yaml", |text| fenced(text, "name: helloworld-v1")),
        ("samples/helloworld/curl-deploy.yaml", |text| fenced(text, "name: curl-deploy")),
        ("samples/helloworld/curl-deploy1.yaml", second_caller),
        ("helloworld-rules.yaml", |text| fenced(text, "sourceLabels")),
    ],
    steps: &[
        // "Deployed istio following the instructions from official documentation."
        Reader(
            "kubectl apply -f install/kubernetes/istio-demo.yaml && kubectl -n istio-system wait --for=condition=Available deployment --all --timeout=120s",
        ),
        Instead { of: "$ kubectl get pod -n istio-system", run: "kubectl get pod -n istio-system", because: OtherPods },
        Shows(&[
            "istio-citadel-",
            "istio-egressgateway-",
            "istio-ingressgateway-",
            "istio-pilot-",
            "istio-sidecar-injector-",
        ]),
        Instead {
            of: "kubectl logs -f istio-pilot-6b75486f59-czlkv -n istio-system -c discovery",
            run: "kubectl logs deploy/istio-pilot -n istio-system -c discovery",
            because: Endless,
        },
        Verbatim("kubectl create -f <(istioctl kube-inject -f samples/helloworld/custom_helloworld.yaml)"),
        Shows(&["service/helloworld created", "helloworld-v1 created", "helloworld-v2 created"]),
        Reader("kubectl wait --for=condition=Available deployment --all --timeout=120s"),
        Verbatim("kubectl get pod -o wide"),
        Shows(&["helloworld-v1-", "helloworld-v2-", "2/2", "Running"]),
        Verbatim("kubectl get svc"),
        Shows(&["helloworld", "5000/TCP", "kubernetes"]),
        Verbatim("kubectl create -f <(istioctl kube-inject -f samples/helloworld/curl-deploy.yaml)"),
        Reader(
            "kubectl create -f <(istioctl kube-inject -f samples/helloworld/curl-deploy1.yaml) && kubectl wait --for=condition=Available deployment --all --timeout=120s",
        ),
        Verbatim("kubectl get pod --show-labels"),
        Shows(&["app=curl,", "app=curl1,", "app=helloworld,", "version=v2"]),
        Instead {
            of: "kubectl exec -it curl-deploy-5f7684bb65-468vt -c curl sh",
            run: "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo 'curl -sS helloworld.default.svc.cluster.local:5000/hello'; done | kubectl exec -i deploy/curl-deploy -c curl -- sh",
            because: KubectlSyntax,
        },
        Shows(&["Hello version: v1, instance: helloworld-v1-", "Hello version: v2, instance: helloworld-v2-"]),
        Reader("kubectl apply -f helloworld-rules.yaml"),
        Shows(&[
            "virtualservice.networking.istio.io/helloworld-virtualservice created",
            "destinationrule.networking.istio.io/helloworld-destinationrule created",
        ]),
        // The rule reaches the caller's proxy within a second; the text's reader types slower than that.
        Reader(
            "for i in $(seq 50); do out=$(for n in 1 2 3 4 5 6; do kubectl exec deploy/curl-deploy -c curl -- curl -sS helloworld:5000/hello; done); case $out in *v2*) ;; *) break;; esac; done; true",
        ),
        Instead {
            of: "curl helloworld.default.svc.cluster.local:5000/hello",
            run: "for i in $(seq 12); do echo 'curl -sS helloworld.default.svc.cluster.local:5000/hello'; done | kubectl exec -i deploy/curl-deploy -c curl -- sh",
            because: NameOfTheDay,
        },
        Shows(&["Hello version: v1"]),
        ShowsNot(&["Hello version: v2"]),
        Reader(
            "for i in $(seq 24); do echo 'curl -sS helloworld.default.svc.cluster.local:5000/hello'; done | kubectl exec -i deploy/curl-deploy1 -c curl -- sh",
        ),
        Shows(&["Hello version: v1", "Hello version: v2"]),
    ],
};

/// "You just need to replace curl with curl1": in names and labels, not in the image, and the container keeps its name.
fn second_caller(text: &str) -> Result<String> {
    let first = fenced(text, "name: curl-deploy")?;
    Ok(first
        .replace("name: curl-deploy", "name: curl-deploy1")
        .replace("app: curl\n", "app: curl1\n")
        .replace("  name: curl\n  labels", "  name: curl1\n  labels"))
}
