//! A connection to the API server, from within a Pod or from a kubeconfig.
//!
//! Never here: what is asked of it. Called in `main` of each control program.

use kube::{Client, Config, config::KubeConfigOptions};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a Pod's ServiceAccount nor a kubeconfig is to be found.
    #[error("no way to the API server is configured")]
    NotConfigured(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration cannot be used.
    #[error("the API server's address or credentials cannot be used")]
    Unusable(#[source] kube::Error),
}

/// A client by the Pod's ServiceAccount, or `KUBECONFIG`, or `~/.kube/config`; with a named context of the latter if given.
///
/// # Errors
/// None of these is there, or it cannot be used.
pub async fn connect(context: Option<&str>) -> Result<Client, ClientError> {
    api_rt::tls::install();
    let config = match context {
        None => Config::infer().await.map_err(|error| ClientError::NotConfigured(Box::new(error)))?,
        Some(name) => {
            let options = KubeConfigOptions { context: Some(name.to_owned()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| ClientError::NotConfigured(Box::new(error)))?
        }
    };
    Client::try_from(config).map_err(ClientError::Unusable)
}

/// Whether the API server said that there is no such thing.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server said that somebody else was faster.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
