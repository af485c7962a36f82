//! A bare proxy without features, and the application that stands behind every proxy of a bench.
//!
//! Never here: an assertion about speed. Started by `bench-data`.

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    bench::floor::run(&args)
}
