//! "Getting Started with Istio Service Mesh": install by istioctl, injection by label, rules of every kind.
//!
//! The YAML has lost its indentation in the text; it is given back here, line for line, and each line is looked up in the
//! text. Never here: how steps run. Called by the suite `tutorials`.

use anyhow::{Result, ensure};

use super::{
    Because::Download,
    Step::{Instead, Reader, Shows, Verbatim},
    Tutorial,
};

pub(crate) const TUTORIAL: Tutorial = Tutorial {
    name: "getting-started",
    file: "getting-started-with-istio.txt",
    files: &[
        ("gateway.yml", |text| indented(text, include_str!("getting_started/gateway.yml"))),
        ("virtual-service.yml", |text| indented(text, include_str!("getting_started/virtual-service.yml"))),
        ("virtual-service-all.yml", |text| indented(text, include_str!("getting_started/virtual-service-all.yml"))),
        ("destination-rule-all.yaml", |text| indented(text, include_str!("getting_started/destination-rule-all.yaml"))),
        ("enable-strict-mode.yml", |text| indented(text, include_str!("getting_started/enable-strict-mode.yml"))),
    ],
    steps: &[
        Instead { of: "curl -L https://istio.io/downloadIstio | sh -", run: "ls bin/istioctl", because: Download },
        Verbatim("export PATH=$PWD/bin:$PATH"),
        Verbatim("istioctl install --set profile=demo -y"),
        Shows(&["Installation complete"]),
        Verbatim("kubectl create namespace testing"),
        Verbatim("kubectl label namespace testing istio-injection=enabled"),
        Verbatim("kubectl describe namespace testing"),
        Shows(&["istio-injection=enabled"]),
        Verbatim("kubectl apply -n testing -f samples/bookinfo/platform/kube/bookinfo.yaml"),
        Reader(
            "kubectl -n testing wait --for=condition=Available deployment --all --timeout=180s && kubectl -n testing describe pods",
        ),
        Shows(&["istio-proxy"]),
        Verbatim("kubectl apply -f gateway.yml -n testing"),
        Verbatim("kubectl apply -f virtual-service.yml -n testing"),
        Verbatim("IP_LB=$(kubectl get svc istio-ingressgateway -n istio-system -o jsonpath='{.spec.clusterIP}')"),
        Reader(
            "for i in $(seq 100); do [ \"$(curl -s -o /dev/null -w '%{http_code}' -H 'Host: xyz.com' $IP_LB/productpage)\" = 200 ] && break; sleep 0.1; done",
        ),
        Verbatim("curl -H \"Host: xyz.com\" $IP_LB/productpage"),
        Shows(&["Simple Bookstore App", "Book Reviews"]),
        Verbatim("kubectl apply -f virtual-service-all.yml -n testing"),
        Shows(&["virtualservice.networking.istio.io/reviews created"]),
        Verbatim("kubectl apply -f destination-rule-all.yaml -n testing"),
        Shows(&["destinationrule.networking.istio.io/ratings created"]),
        // jason with Chrome sees v2's black stars, everyone else v1.
        Reader(
            "for i in $(seq 100); do curl -s -H 'Host: xyz.com' -H 'user-agent: Chrome' -b 'bookinfo_user=jason' $IP_LB/productpage | grep -q 'color=\"black\"' && break; sleep 0.1; done; for i in 1 2 3 4 5 6; do curl -s -H 'Host: xyz.com' -A 'a Chrome b' -b 'bookinfo_user=jason' $IP_LB/productpage | grep -c 'color=\"black\"'; done",
        ),
        Shows(&["1\n1\n1\n1\n1\n1\n"]),
        Reader(
            "for i in 1 2 3 4 5 6; do curl -s -H 'Host: xyz.com' $IP_LB/productpage | grep -c 'color=' || true; done",
        ),
        Shows(&["0\n0\n0\n0\n0\n0\n"]),
        Verbatim("kubectl apply -f enable-strict-mode.yml -n testing"),
        // STRICT is in force once a caller without identity is refused; the page still comes through the gateway.
        Reader(
            "for i in $(seq 50); do curl -s -m 2 -o /dev/null http://productpage.testing:9080/productpage || { echo refused; break; }; sleep 0.1; done",
        ),
        Shows(&["refused"]),
        Reader("curl -s -o /dev/null -w '%{http_code}\\n' -H 'Host: xyz.com' $IP_LB/productpage"),
        Shows(&["200"]),
    ],
};

/// Our indented form, once every line of it stands in the text in this order.
fn indented(text: &str, ours: &str) -> Result<String> {
    let mut lines = text.lines().map(str::trim);
    for line in ours.lines().map(str::trim).filter(|line| !line.is_empty()) {
        ensure!(lines.any(|said| said == line), "the text does not say (here): {line}");
    }
    Ok(ours.to_owned())
}
