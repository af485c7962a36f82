//! The sample applications: Bookinfo, helloworld, httpbin and an echo server, in one program.
//!
//! `samples NAME` runs one of them; the version comes from `SERVICE_VERSION`, the ports from Istio's own samples.
//! Never here: anything that knows of a mesh. They are plain HTTP services that pass tracing headers on.
//! Run by the sandbox under the image names of Istio's samples, and by tests.

mod app;
mod details;
mod echo;
mod helloworld;
mod httpbin;
mod productpage;
mod ratings;
mod reviews;

use std::process::ExitCode;

const USAGE: &str = "usage: samples productpage|details|reviews|ratings|helloworld|httpbin [PORT]
       samples tcp-echo-server PORT[,PORT…] PREFIX";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("", String::as_str);
    let port = args.get(1).and_then(|port| port.parse().ok());
    let version = app::env("SERVICE_VERSION").unwrap_or_else(|| "v1".to_owned());
    let served = match name {
        "productpage" => app::serve(port.unwrap_or(9080), productpage::Productpage::from_env()).await,
        "details" => app::serve(port.unwrap_or(9080), details::Details { version }).await,
        "reviews" => app::serve(port.unwrap_or(9080), reviews::Reviews::from_env(&version)).await,
        "ratings" => app::serve(port.unwrap_or(9080), ratings::Ratings::default()).await,
        "helloworld" => app::serve(port.unwrap_or(5000), helloworld::Helloworld { version }).await,
        "httpbin" => app::serve(port.unwrap_or(8080), httpbin::Httpbin).await,
        "tcp-echo-server" => {
            echo::serve(args.get(1).map_or("9000", String::as_str), args.get(2).map_or("hello", String::as_str)).await
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
