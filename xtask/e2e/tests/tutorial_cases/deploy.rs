//! "Deploy Istio on Kubernetes": CRDs first, mutual TLS by default, rules by file, `istioctl get`.
//!
//! Never here: how steps run. Called by the suite `tutorials`.

use super::{
    Because::{AuthorsMachine, Download, Endless, KubectlSyntax, NameOfTheDay},
    Step::{Instead, Reader, Shows, ShowsNot, Verbatim},
    Tutorial,
};

pub(crate) const TUTORIAL: Tutorial = Tutorial {
    name: "deploy",
    file: "deploy-istio-on-kubernetes.txt",
    files: &[],
    steps: &[
        Instead {
            of: "curl -L https://git.io/getLatestIstio | ISTIO_VERSION=1.0.0 sh -",
            run: "ls bin/istioctl",
            because: Download,
        },
        Instead { of: "cd /root/istio-1.0.0", run: "true", because: AuthorsMachine },
        Verbatim("kubectl apply -f install/kubernetes/helm/istio/templates/crds.yaml -n istio-system"),
        Shows(&["virtualservices.networking.istio.io created"]),
        Verbatim("kubectl apply -f install/kubernetes/istio-demo-auth.yaml"),
        Reader("kubectl -n istio-system wait --for=condition=Available deployment --all --timeout=120s"),
        Verbatim("kubectl get pods -n istio-system"),
        Shows(&["istio-pilot-", "istio-citadel-", "Running"]),
        Instead { of: "kubectl apply -f /root/katacoda.yaml", run: "true", because: AuthorsMachine },
        Instead {
            of: "kubectl apply -f <(istioctlkube-inject -f samples/bookinfo/platform/kube/bookinfo.yaml)",
            run: "kubectl apply -f <(istioctl kube-inject -f samples/bookinfo/platform/kube/bookinfo.yaml)",
            because: KubectlSyntax,
        },
        Verbatim("kubectl apply -f samples/bookinfo/networking/bookinfo-gateway.yaml"),
        Reader("kubectl wait --for=condition=Available deployment --all --timeout=180s"),
        Verbatim("kubectl get pods"),
        Shows(&["2/2", "productpage-v1-"]),
        Instead {
            of: "https://2886795278-80-cykoria08.environments.katacoda.com/productpage",
            run: "URL=http://$(kubectl -n istio-system get service istio-ingressgateway -o jsonpath='{.spec.clusterIP}')/productpage; for i in $(seq 200); do [ \"$(curl -s -m 2 -o /dev/null -w '%{http_code}' $URL)\" = 200 ] && break; sleep 0.1; done; curl -s $URL",
            because: NameOfTheDay,
        },
        Shows(&["Book Reviews"]),
        Verbatim("kubectl apply -f samples/bookinfo/networking/destination-rule-all-mtls.yaml"),
        Verbatim("kubectl apply -f samples/bookinfo/networking/virtual-service-reviews-v3.yaml"),
        Reader(
            "for i in $(seq 100); do out=$(for n in 1 2 3 4 5 6; do curl -s $URL | grep -o 'color=\"red\"\\|unavailable\\|<u>reviews-v[12]' | sort -u; done | sort -u | tr '\\n' ' '); [ \"$out\" = 'color=\"red\" ' ] && break; sleep 0.1; done; for n in $(seq 12); do curl -s $URL | grep -o '<u>reviews-v.'; done",
        ),
        Shows(&["<u>reviews-v3"]),
        ShowsNot(&["<u>reviews-v1", "<u>reviews-v2"]),
        Verbatim("kubectl apply -f samples/bookinfo/networking/virtual-service-reviews-50-v3.yaml"),
        // The rule is there once v1 answers again; what comes after that is by the rule alone.
        Reader(
            "for i in $(seq 200); do curl -s $URL | grep -q '<u>reviews-v1' && break; sleep 0.05; done; for n in $(seq 40); do curl -s $URL | grep -o '<u>reviews-v.'; done",
        ),
        Shows(&["<u>reviews-v1", "<u>reviews-v3"]),
        ShowsNot(&["<u>reviews-v2"]),
        Verbatim("istioctl get virtualservices"),
        Shows(&["VIRTUAL-SERVICE NAME", "reviews", "bookinfo-gateway"]),
        Verbatim("istioctl get virtualservices -o yaml"),
        Shows(&["kind: VirtualService", "weight: 50"]),
        Instead {
            of: "while true; do curl -s https://2886795324-80-cykoria08.environments.katacoda.com/productpage > /dev/null; echo -n .; sleep 0.2; done",
            run: "for i in $(seq 10); do curl -s $URL > /dev/null; echo -n .; sleep 0.2; done",
            because: Endless,
        },
        Shows(&[".........."]),
    ],
};
