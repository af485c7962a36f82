//! "Why do I need a service mesh": install from a rendered chart, addresses by jsonpath.
//!
//! Never here: how steps run. Called by the suite `tutorials`.

use super::{
    Because::{Helm2, NameOfTheDay, OtherPods},
    Step::{Instead, Reader, Shows, Verbatim},
    Tutorial,
};

pub(crate) const TUTORIAL: Tutorial = Tutorial {
    name: "why",
    file: "why-do-i-need-a-service-mesh.txt",
    files: &[],
    steps: &[
        Instead {
            of: "helm template install/kubernetes/helm/istio --name istio --namespace istio-system --set grafana.enabled=true",
            run: "kubectl create namespace istio-system && helm template istio install/kubernetes/helm/istio --namespace istio-system --set grafana.enabled=true > rendered.yaml && kubectl apply -f rendered.yaml",
            because: Helm2,
        },
        Shows(&[
            "virtualservices.networking.istio.io",
            "istio-citadel created",
            "istio-pilot created",
            "istio-ingressgateway created",
        ]),
        Reader("kubectl -n istio-system wait --for=condition=Available deployment --all --timeout=120s"),
        Instead { of: "kubectl get pods -n istio-system", run: "kubectl get pods -n istio-system", because: OtherPods },
        Shows(&[
            "istio-citadel-",
            "istio-egressgateway-",
            "istio-ingressgateway-",
            "istio-pilot-",
            "istio-sidecar-injector-",
        ]),
        Instead {
            of: "kubectl apply -f <(istioctl kube-inject -f platform/kube/bookinfo.yaml)",
            run: "cd samples/bookinfo && kubectl apply -f <(istioctl kube-inject -f platform/kube/bookinfo.yaml)",
            because: NameOfTheDay,
        },
        Reader("kubectl wait --for=condition=Available deployment --all --timeout=180s"),
        Verbatim("kubectl get pods"),
        Shows(&["2/2", "productpage-v1-"]),
        Verbatim("kubectl get services"),
        Shows(&["details", "productpage", "ratings", "reviews"]),
        Verbatim("kubectl apply -f networking/bookinfo-gateway.yaml"),
        Shows(&["bookinfo-gateway created", "bookinfo created"]),
        Verbatim(
            "export INGRESS_HOST=$(kubectl -n istio-system get service istio-ingressgateway -o jsonpath='{.status.loadBalancer.ingress[0].ip}')",
        ),
        Verbatim(
            "export INGRESS_PORT=$(kubectl -n istio-system get service istio-ingressgateway -o jsonpath='{.spec.ports[?(@.name==\"http2\")].port}')",
        ),
        Verbatim(
            "export SECURE_INGRESS_PORT=$(kubectl -n istio-system get service istio-ingressgateway -o jsonpath='{.spec.ports[?(@.name==\"https\")].port}')",
        ),
        Verbatim("export GATEWAY_URL=$INGRESS_HOST:$INGRESS_PORT"),
        Reader(
            "for i in $(seq 200); do [ \"$(curl -o /dev/null -s -m 2 -w '%{http_code}' http://${GATEWAY_URL}/productpage)\" = 200 ] && break; sleep 0.1; done",
        ),
        Verbatim("curl -o /dev/null -s -w \"%{http_code}\\n\" http://${GATEWAY_URL}/productpage"),
        Shows(&["200"]),
    ],
};
