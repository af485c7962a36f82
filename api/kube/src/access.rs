//! What a ServiceAccount may do: the API server is asked by SubjectAccessReview.
//!
//! Never here: who the caller is (`token`, certificates). Called by pilot for gateways.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

/// Asks whether a ServiceAccount may list the Secrets of its namespace, as Istio asks before it hands out their keys.
///
/// # Errors
/// The API server does not answer, or may not be asked.
pub async fn may_list_secrets(client: &Client, namespace: &str, service_account: &str) -> Result<bool, kube::Error> {
    let ask = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{service_account}")),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some("list".to_owned()),
                resource: Some("secrets".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &ask).await?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}
